import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { commands, optionNamed, options, spellings } from '../../src/command-line/commands.ts';
import { COMMON_FLAGS, helpText, optionTerm } from '../../src/command-line/help.ts';
import { manualPage } from '../../src/command-line/manual.ts';
import { topics } from '../../src/command-line/topics.ts';
import { ExitCode, UsageError } from '../../src/errors.ts';
import { missing } from '../support/debian.ts';

const words = [...new Set([...Object.keys(commands), ...Object.keys(topics)])];
const terms = Object.values(topics).flatMap(({ paragraphs }) =>
  paragraphs.flatMap((paragraph) => (typeof paragraph === 'string' ? [] : paragraph.map(([term]) => term))),
);

for (const word of words) {
  test(`help: ${word} fits 80 columns`, () => {
    const lines = helpText(word).split('\n');
    assert.ok(lines.length > 3);
    assert.deepEqual(
      lines.filter((line) => line.length > 80),
      [],
    );
  });
}

test('help: a word that is a command and a topic shows both', () => {
  assert.match(helpText('cache'), /^Usage: dlrootfs cache[^]*^Cache\n[^]*XDG_CACHE_HOME/m);
});

test('help: a mistyped topic is guessed', () => {
  assert.throws(
    () => helpText('credntials'),
    (error) => error instanceof UsageError && error.hint === 'did you mean credentials?',
  );
});

test('help: a word that is in the help is found there', () => {
  const hints = {
    unchanged: 'see dlrootfs help refresh',
    subject: 'dlrootfs --help --all lists all commands, flags and topics',
    sudo: 'see dlrootfs help cache',
    xyzzy: 'dlrootfs --help --all lists all commands, flags and topics',
    'a(': 'dlrootfs --help --all lists all commands, flags and topics',
  };
  for (const [word, hint] of Object.entries(hints))
    assert.throws(
      () => helpText(word),
      (error) => error instanceof UsageError && error.hint === hint,
      word,
    );
});

test('help: a runtime, a singular or a word of another tool leads to the text of its topic', () => {
  const topicOf = {
    runc: 'runtimes',
    LXC: 'runtimes',
    cron: 'refresh',
    update: 'refresh',
    registry: 'registries',
    password: 'credentials',
    cosign: 'trust',
    erofs: 'disks',
    subuid: 'rootless',
    env: 'environment',
    history: 'layers',
    exit: 'exit-codes',
    'exit codes': 'exit-codes',
    'disk images': 'disks',
    'inspect alpine': 'inspect',
  };
  for (const [word, topic] of Object.entries(topicOf)) assert.equal(helpText(word), helpText(topic), word);
  for (const word of ['commands', 'flags', 'topics', 'examples'])
    assert.equal(helpText(word), helpText(undefined, true), word);
});

const flat = (word: string): string => helpText(word).replaceAll(/\s+/g, ' ');

test('help: a flag is a word too: what it does, with which commands, and where there is more', () => {
  for (const word of ['replace', '--replace'])
    assert.match(
      flat(word),
      /^ --replace\[=always\] make DIR exactly .* With dlrootfs IMAGE More see dlrootfs help refresh or dlrootfs help git $/,
    );
  assert.match(
    flat('u'),
    /-u, --user <user\[:password\]> .* With .*dlrootfs tags.* More see dlrootfs help credentials/,
  );
  assert.match(flat('retry'), /^ --retry <n> .* More see dlrootfs --help --all $/);
});

test('help: --help leaves a line for the prompt on a terminal of 80 × 24, and names every command and topic', () => {
  const lines = helpText().trimEnd().split('\n');
  assert.ok(lines.length <= 23 && lines.every((line) => line.length <= 80), lines.join('\n'));
  for (const word of words.filter((name) => name !== 'pull'))
    assert.match(lines.join('\n'), new RegExp(`\\s${word}(?:,|$)`, 'm'));
  for (const [flag] of COMMON_FLAGS)
    assert.ok(optionNamed(/^--?([a-z]+)/.exec(flag)![1]!) !== undefined, flag);
});

test('help: on a narrow terminal no word is broken', () => {
  for (const columns of [40, 60])
    for (const line of helpText(undefined, false, columns).split('\n'))
      assert.ok(line.length <= columns || /^ {2}dlrootfs \S.{0,40}$/.test(line), line);
});

test('help: --help --all names every command, topic, flag and exit code', () => {
  const text = helpText(undefined, true);
  for (const word of words.filter((name) => name !== 'pull'))
    assert.match(text, new RegExp(`^  dlrootfs (?:help )?${word}\\b`, 'm'));
  for (const option of commands['pull']!.options) {
    const term = optionTerm(option);
    assert.ok(text.includes(`\n  ${term} `), term);
  }
  for (const code of Object.values(ExitCode)) assert.match(text, new RegExp(`^  ${code} {2,}\\w`, 'm'));
  assert.equal(helpText('pull'), text);
});

const page = manualPage('2026-11-24');

test('the man page has every flag and what the topics say', { skip: missing('mandoc') }, () => {
  const shown = execFileSync('mandoc', ['-T', 'utf8', '-O', 'width=200'], { input: page, encoding: 'utf8' })
    // In bold text, each letter is printed twice.
    // eslint-disable-next-line no-control-regex
    .replaceAll(/.\u0008/g, '')
    .replaceAll(/\s+/g, ' ');
  const flags = options.map((option) => optionTerm(option));
  for (const text of [...flags, ...terms]) assert.ok(shown.includes(text), text);
  for (const { title } of Object.values(topics)) assert.ok(shown.includes(title), title);
});

test('mandoc and man-db find nothing wrong with the man page', { skip: missing('mandoc', 'man') }, () => {
  const lint = spawnSync('mandoc', ['-T', 'lint', '-W', 'warning'], { input: page, encoding: 'utf8' });
  assert.equal(`${lint.stdout}${lint.stderr}`, '');
  const shown = spawnSync('man', ['--warnings', '--local-file', '-'], { input: page, encoding: 'utf8' });
  assert.equal(shown.stderr, '');
  assert.match(shown.stdout, /turn a container image/);
});

test('help: a value that may be left out is shown as it is written, behind an equals sign', () => {
  const text = helpText(undefined, true);
  for (const term of ['--replace[=always] ', '--tls-verify[=bool] ']) {
    assert.ok(text.includes(`\n  ${term}`), term);
    assert.ok(page.includes(`\\fB${term.trim().replaceAll('-', '\\-')}\\fR`), term);
  }
  assert.doesNotMatch(text, /^ {2}-\S+(?:, \S+)? \[/m);
});

test('help: each flag of --help --all has a text of its own', () => {
  for (const option of options)
    for (const spelled of spellings(option))
      assert.match(
        helpText(spelled),
        new RegExp(`^ +${optionTerm(option).replaceAll(/[[\]|]/g, '\\$&')}\\s`),
        spelled,
      );
});

test('--help --all has every flag of every command', () => {
  const text = helpText(undefined, true);
  for (const command of Object.values(commands))
    for (const { long } of command.options) assert.ok(text.includes(long!), long);
});
