import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { film } from '../scripts/readme/film.ts';
import { withHelp } from '../scripts/readme/help-block.ts';

const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');

test('readme: its help is what --help prints (npm run readme)', () => {
  assert.equal(readme, withHelp(readme));
});

test('readme: every file it links to is there', () => {
  const links = [...readme.matchAll(/\]\((?!https?:)([^)#]+)/g)].map((match) => match[1]!);
  const missing = links.filter((link) => !existsSync(new URL(`../${link}`, import.meta.url)));
  assert.deepEqual(missing, []);
});

test('readme: every runtime package has its line', () => {
  const { dependencies } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
    dependencies: Record<string, string>;
  };
  const missing = Object.keys(dependencies).filter((name) => !readme.includes(`**${name}**`));
  assert.deepEqual(missing, []);
});

test('readme: the picture is small, needs nothing from elsewhere, and shows a run to its end (npm run picture)', () => {
  const svg = readFileSync(new URL('../docs/demo.svg', import.meta.url), 'utf8');
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

/** The texts of the program's sources, with `…` for what is filled in. */
function printedTexts(): string[] {
  const source = new URL('../src/', import.meta.url);
  const files = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.ts'),
  );
  return files.flatMap((file) => {
    const text = readFileSync(new URL(file, source), 'utf8').replaceAll(/\$\{(?:[^{}]|\{[^{}]*\})*\}/g, '…');
    return [...text.matchAll(/`([^`\n]*)`|'([^'\n]*)'/g)].map((match) => match[1] ?? match[2]!);
  });
}

test('readme: each error it explains is one that the program prints', () => {
  const section = readme.slice(readme.indexOf('## Errors'));
  const quoted = [...section.matchAll(/^\| ((?:`[^`]+`(?:, )?)+) \|/gm)].flatMap((match) =>
    [...match[1]!.matchAll(/`([^`]+)`/g)].map(([, text]) => text!),
  );
  assert.ok(quoted.length >= 15);
  const texts = printedTexts();
  for (const text of quoted) {
    const pieces = text
      .split('…')
      .map((piece) => piece.trim())
      .filter((piece) => /\w/.test(piece));
    const inOrder = (printed: string) =>
      pieces.reduce((from, piece) => {
        const found = from < 0 ? -1 : printed.indexOf(piece, from);
        return found < 0 ? -1 : found + piece.length;
      }, 0) > 0;
    assert.ok(texts.some(inOrder), text);
  }
});

test('readme: every place within a document that it names is there', () => {
  for (const [, file = '', anchor = ''] of readme.matchAll(/\]\((docs\/[^)#]+)#([^)]+)\)/g)) {
    const headings = [
      ...readFileSync(new URL(`../${file}`, import.meta.url), 'utf8').matchAll(/^#+ (.*)$/gm),
    ];
    const anchors = headings.map(([, heading]) =>
      heading!
        .toLowerCase()
        .replaceAll(/[^\w\s-]/g, '')
        .replaceAll(' ', '-'),
    );
    assert.ok(anchors.includes(anchor), `${file}#${anchor}`);
  }
});
