import assert from 'node:assert/strict';
import { appendFileSync, mkdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { test } from 'node:test';
import { addedLayer } from '../../src/commands/added-layer.ts';
import { DestinationError } from '../../src/errors.ts';
import type { Image } from '../../src/oci/image.ts';
import { file, tar } from '../support/archive.ts';
import { Scratch } from '../support/program.ts';

const noLayers = { layers: [] } as unknown as Image;

/** Adds `source`, and calls `change` when the entry of `path` is written to the layer. */
async function addWhile(scratch: Scratch, source: string, path: string, change: () => void): Promise<void> {
  let changed = false;
  const spool = async () => {
    const handle = await open(scratch.join('spool'), 'w+');
    const write = handle.write.bind(handle) as (...values: readonly unknown[]) => Promise<unknown>;
    const writeAndChange = async (bytes: Buffer, ...values: unknown[]) => {
      if (!changed && bytes.includes(`srv/${path}\0`)) {
        change();
        changed = true;
      }
      return await write(bytes, ...values);
    };
    return Object.assign(handle, { write: writeAndChange });
  };
  const addition = { text: source, source: scratch.join(source), destination: '/srv/' };
  const place = { spoolDirectory: scratch.path, spool };
  await using _ = await addedLayer([addition], undefined, noLayers, place, AbortSignal.timeout(60_000));
}

const MIB = 2 ** 20;

/** Makes `tree` with two directories, two files and a symlink, and archives of two files of 4 MiB. */
function makeSources(scratch: Scratch): void {
  mkdirSync(scratch.join('tree/a'), { recursive: true });
  mkdirSync(scratch.join('tree/b'));
  writeFileSync(scratch.join('tree/a/one'), Buffer.alloc(4 * MIB, 1));
  writeFileSync(scratch.join('tree/b/two'), 'two');
  symlinkSync('two', scratch.join('tree/b/link'));
  const contents = Buffer.alloc(4 * MIB, 'x');
  writeFileSync(scratch.join('more.tar'), tar(file('one', contents), file('two', contents)));
}

const rows: readonly (readonly [
  what: string,
  source: string,
  path: string,
  change: (scratch: Scratch) => void,
  named: string,
])[] = [
  [
    'an archive that shrinks',
    'more.tar',
    'one',
    (s) => truncateSync(s.join('more.tar'), 5 * MIB),
    'more.tar',
  ],
  ['an archive that grows', 'more.tar', 'one', (s) => appendFileSync(s.join('more.tar'), 'x'), 'more.tar'],
  [
    'an archive that is written again',
    'more.tar',
    'one',
    (s) => writeFileSync(s.join('more.tar'), Buffer.alloc(8 * MIB, 'y')),
    'more.tar',
  ],
  ['a file that shrinks', 'tree', 'a/one', (s) => truncateSync(s.join('tree/a/one'), MIB), 'tree/a/one'],
  ['a file that grows', 'tree', 'a/one', (s) => appendFileSync(s.join('tree/a/one'), 'x'), 'tree/a/one'],
  ['a file that disappears', 'tree', 'b/link', (s) => rmSync(s.join('tree/b/two')), 'tree/b'],
  [
    'a directory that disappears',
    'tree',
    'a/one',
    (s) => rmSync(s.join('tree/b'), { recursive: true }),
    'tree',
  ],
  [
    'a directory that becomes a file',
    'tree',
    'a/one',
    (s) => {
      rmSync(s.join('tree/b'), { recursive: true });
      writeFileSync(s.join('tree/b'), '');
    },
    'tree',
  ],
  ['a directory that gets another name', 'tree', 'b/link', (s) => mkdirSync(s.join('tree/c')), 'tree'],
];

for (const [what, source, path, change, named] of rows) {
  test(`add: ${what} while it is read is an error that names it`, async () => {
    using scratch = new Scratch();
    makeSources(scratch);
    await assert.rejects(
      addWhile(scratch, source, path, () => change(scratch)),
      (error) => {
        assert.ok(error instanceof DestinationError, String(error));
        assert.deepEqual(
          [error.message, error.hint],
          [
            `cannot add ${scratch.join(named)}: it was changed while it was read`,
            'run it again when nothing writes there, or add a copy',
          ],
        );
        return true;
      },
    );
  });
}

test('add: sources that nobody changes are added', async () => {
  using scratch = new Scratch();
  makeSources(scratch);
  for (const source of ['tree', 'more.tar', 'tree/a/one'])
    await addWhile(scratch, source, 'a', () => undefined);
});
