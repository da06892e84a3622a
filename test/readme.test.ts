import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { film } from '../scripts/readme/film.ts';
import { commands, optionNamed } from '../src/command-line/commands.ts';
import { parseArguments } from '../src/command-line/program.ts';
import { topics } from '../src/command-line/topics.ts';

const root = new URL('../', import.meta.url);
const read = (name: string) => readFileSync(new URL(name, root), 'utf8');
const readme = read('README.md');
const names = [
  'README.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
  ...readdirSync(new URL('docs', root)).map((name) => `docs/${name}`),
];
const documents = new Map(names.filter((name) => name.endsWith('.md')).map((name) => [name, read(name)]));

/** Returns the arguments of each `dlrootfs …` in blocks and spans of code. */
function* commandLines(text: string): Generator<string[], void, void> {
  const blocks = /^```\w*\n([^]*?)^```$|^ {4,}(.*)$|`([^`\n]+)`/gm;
  for (const [, fenced, indented, span] of text.matchAll(blocks)) {
    for (const line of (fenced ?? indented ?? span!).split('\n')) {
      for (const [, words = ''] of line.matchAll(
        /(?:^|[\s(])dlrootfs((?: +(?:'[^']*'|"[^"]*"|[^\s'"|&;<>#()]+))+)/g,
      )) {
        const argv = words.match(/'[^']*'|"[^"]*"|[^\s'"]+/g)!;
        const isName = argv.length === 1 && Object.hasOwn(commands, argv[0]);
        if (!isName) yield argv.map((word) => word.replace(/^(['"])(.*)\1$/, '$2'));
      }
    }
  }
}

test('readme: at most 200 lines; its first screen has the shell, the clone and its two commands', () => {
  const lines = readme.split('\n');
  assert.ok(lines.length <= 200, String(lines.length));
  const first = lines.slice(0, 24).join('\n');
  for (const text of [
    'dlrootfs alpine && chroot rootfs /bin/sh',
    'docs/demo.svg',
    'git clone',
    'make demo',
    'make test',
  ])
    assert.ok(first.includes(text), text);
});

for (const [name, text] of documents) {
  test(`${name}: every file it links to is there, and every place within one`, () => {
    for (const [, link = '', anchor] of text.matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)/g)) {
      const target = new URL(link, new URL(name, root));
      assert.ok(existsSync(target), link);
      if (anchor === undefined) continue;
      const headings = [...readFileSync(target, 'utf8').matchAll(/^#+ (.*)$/gm)];
      const anchors = headings.map(([, heading]) =>
        heading!
          .toLowerCase()
          .replaceAll(/[^\w\s-]/g, '')
          .replaceAll(' ', '-'),
      );
      assert.ok(anchors.includes(anchor), `${link}#${anchor}`);
    }
  });

  test(`${name}: every command line of dlrootfs in it is one that the program takes`, () => {
    for (const argv of commandLines(text)) assert.doesNotThrow(() => parseArguments(argv), argv.join(' '));
  });

  test(`${name}: every command and flag of dlrootfs in it exists`, () => {
    for (const [, line = ''] of text.matchAll(/\bdlrootfs((?: [^`|&;)#\n]+)+)/g)) {
      const words = line.trim().split(/\s+/);
      for (const [, flag = ''] of line.matchAll(/(?<=\s)--?([a-z][a-z-]*)/g))
        assert.ok(optionNamed(flag) !== undefined, `${flag} in dlrootfs${line}`);
      if (words[0] !== 'help') continue;
      const topic = words[1] ?? 'help';
      const known = topic in topics || topic in commands || topic === topic.toUpperCase();
      assert.ok(known || topic.startsWith('-'), `help ${topic}`);
    }
  });
}

test('the command lines of the documents are found', () => {
  const found = [...documents.values()].flatMap((text) => [...commandLines(text)]);
  assert.ok(found.length >= 60, String(found.length));
});

test('docs/README.md names every document and schema', () => {
  const index = documents.get('docs/README.md')!;
  for (const name of documents.keys())
    if (!/README|CHANGELOG/.test(name)) assert.ok(index.includes(name.replace('docs/', '')), name);
});

test('docs/recipes.md names every file of sample_configs, and what starts it', () => {
  const recipes = documents.get('docs/recipes.md')!;
  for (const name of readdirSync(new URL('sample_configs', root)))
    assert.match(
      recipes,
      new RegExp(`^\\| \`${name.replaceAll('.', '\\.')}\` \\|.*\\| .*\`.+\` \\|$`, 'm'),
      name,
    );
});

test('docs/architecture.md: every runtime package has its line', () => {
  const { dependencies } = JSON.parse(read('package.json')) as { dependencies: Record<string, string> };
  const text = documents.get('docs/architecture.md')!;
  const missing = Object.keys(dependencies).filter((name) => !text.includes(`**${name}**`));
  assert.deepEqual(missing, []);
});

test('docs/architecture.md: every room of the sources has its line', () => {
  const text = documents.get('docs/architecture.md')!;
  const rooms = readdirSync(new URL('src', root), { withFileTypes: true }).filter((entry) =>
    entry.isDirectory(),
  );
  for (const { name } of rooms) assert.match(text, new RegExp(`^ {6}${name}/ +\\w`, 'm'));
});

test('docs/library.md: every option of pull has its place', () => {
  const source = read('src/requests.ts');
  const bodies = ['DiffRequest', 'PullRequest extends DiffRequest'].map(
    (name) => new RegExp(`export interface ${name} \\{([^]*?)\\n\\}`).exec(source)![1]!,
  );
  const options = [...bodies.join('\n').matchAll(/^ {2}readonly (\w+)/gm)].map((match) => match[1]!);
  assert.ok(options.length >= 20);
  const missing = options.filter((name) => !documents.get('docs/library.md')!.includes(`\`${name}\``));
  assert.deepEqual(missing, []);
});

test('readme: the picture is small, needs nothing from elsewhere, and shows a run to its end (npm run picture)', () => {
  const svg = read('docs/demo.svg');
  assert.ok(svg.length < 60_000);
  assert.doesNotMatch(svg, /<script|https?:\/\/(?!www\.w3\.org\/2000\/svg")|\bon\w+=/);
  for (const text of [
    '# dlrootfs demo/shell',
    'layers unpacked',
    'Rootfs of demo/shell:latest in ./rootfs',
    'Hello from inside',
  ])
    assert.ok(svg.includes(text), text);
  assert.ok(readme.includes('](docs/demo.svg)'));
});

test('readme: the film plays each frame in its time, and rests on the last', () => {
  const frames = [
    { at: 0, lines: ['$ a <b>'] },
    { at: 1, lines: ['$ a <b>', '', 'c'] },
  ];
  const svg = film(frames, { columns: 10, rows: 3, title: 't', rest: 3 });
  assert.match(svg, /play 4\.0s[^]*0%\{transform:translateY\(-0px\)\}25%\{transform:translateY\(-54px\)\}/);
  assert.match(svg, />\$ a &lt;b&gt;<\/text>/);
  assert.match(
    svg,
    /<g class="s" transform="translate\(0 -54\)">\n<use href="#l0" y="0"\/>\n<use href="#l0" y="54"\/><use href="#l1" y="90"\/>\n/,
  );
});

/** Returns the texts in the program's sources, with `…` for inserted values. */
function printedTexts(): string[] {
  const source = new URL('src/', root);
  const files = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.ts'),
  );
  return files.flatMap((file) => {
    const text = readFileSync(new URL(file, source), 'utf8').replaceAll(/\$\{(?:[^{}]|\{[^{}]*\})*\}/g, '…');
    return [...text.matchAll(/`([^`\n]*)`|'([^'\n]*)'/g)].map((match) => match[1] ?? match[2]!);
  });
}

test('docs/troubleshooting.md: each error it explains is one that the program prints', () => {
  const text = documents.get('docs/troubleshooting.md')!;
  const quoted = [...text.matchAll(/^\| ((?:`[^`]+`(?:, )?)+) \|/gm)].flatMap((match) =>
    [...match[1]!.matchAll(/`([^`]+)`/g)].map(([, each]) => each!),
  );
  assert.ok(quoted.length >= 15);
  const texts = printedTexts();
  for (const each of quoted) {
    const pieces = each
      .split('…')
      .map((piece) => piece.trim())
      .filter((piece) => /\w/.test(piece));
    const inOrder = (printed: string) =>
      pieces.reduce((from, piece) => {
        const found = from < 0 ? -1 : printed.indexOf(piece, from);
        return found < 0 ? -1 : found + piece.length;
      }, 0) > 0;
    assert.ok(texts.some(inOrder), each);
  }
});
