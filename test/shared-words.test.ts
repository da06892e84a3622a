import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';

const source = new URL('../src/', import.meta.url);

/** The files of src with shared words, and their texts. */
const sharing = readdirSync(source, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => ({ name, text: readFileSync(new URL(name, source), 'utf8') }))
  .filter(({ text }) => /\bAtomics\./.test(text));

/** The rows of the table in docs/threads.md, by file and word. */
const rows = new Map(
  [
    ...readFileSync(new URL('../docs/threads.md', import.meta.url), 'utf8').matchAll(
      /^\| `(\w[^`]*\.ts)` \| `(\w+)` \|(.*)\|$/gm,
    ),
  ].map(([, file, word, rest]) => {
    const [meaning, writers, waiters] = rest!.split('|').map((cell) => cell.trim());
    return [`${file} ${word}`, { meaning, writers, waiters }];
  }),
);

/** Returns the matches of `pattern` as `FILE WORD`. Its group is the name of a word. */
function words(pattern: RegExp): string[] {
  const found = sharing.flatMap(({ name, text }) =>
    [...text.matchAll(pattern)].map((match) => `${name} ${match[1]}`),
  );
  return [...new Set(found)].toSorted();
}

test('docs/threads.md lists every shared word, and no other', () => {
  const declared = sharing.flatMap(({ name, text }) => {
    const [, body] = /^const Word = \{$(.*?)^\} as const;$/ms.exec(text) ?? [];
    assert.ok(body !== undefined, `${name} uses Atomics without a table of its words`);
    return [...body.matchAll(/^ {2}(\w+): \d+,$/gm)].map((match) => `${name} ${match[1]}`);
  });
  assert.deepEqual([...rows.keys()].toSorted(), declared.toSorted());
  for (const [word, { meaning, writers, waiters }] of rows) {
    assert.ok(meaning && writers && waiters, word);
  }
});

test('each call of Atomics names its word', () => {
  const unnamed = sharing.flatMap(({ name, text }) =>
    [...text.matchAll(/\bAtomics\.\w+\(\s*[\w.#]+,\s*([\w.]+)/g)]
      .filter(([, word]) => !/^(?:Word\.\w+|word)$/.test(word!))
      .map(([call]) => `${name}: ${call}`),
  );
  assert.deepEqual(unnamed, []);
});

test('the words that somebody waits for are those of the table, and each is signalled', () => {
  const waited = [...rows].filter(([, { waiters }]) => waiters !== 'nobody').map(([word]) => word);
  assert.deepEqual(words(/\bAtomics\.wait(?:Async)?\([^;]*?Word\.(\w+)/g), waited.toSorted());
  assert.deepEqual(words(/(?:#signal\(|\bAtomics\.notify\([^;]*?)Word\.(\w+)/g), waited.toSorted());
});
