/**
 * Images of many directories and layers under every hard limit of open files: each command succeeds, or names
 * a remedy and leaves nothing.
 */
import assert from 'node:assert/strict';
import { readdirSync, rmSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { dir, file, tar } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { type ProgramResult, runProgram, Scratch } from '../support/program.ts';

const needs = missing('prlimit', 'git');

const DIRECTORIES = 1000;
/** Incompressible, so that the image is large enough for the thread that decodes. */
const noise = (seed: number) =>
  Buffer.from(
    Array.from({ length: 4200 }, (_, index) => Math.imul(index + 1, seed * 2_654_435_761 + 97) >>> 13),
  );
const deep = Array.from({ length: 120 }, (_, index) => dir('e/'.repeat(index + 1)));
const wide = Array.from({ length: DIRECTORIES }, (_, index) => [
  dir(`d/${index}`),
  file(`d/${index}/file`, noise(index)),
]).flat();

let registry: FakeRegistry;
before(async () => {
  registry = await FakeRegistry.start();
  const again = Array.from({ length: DIRECTORIES }, (_, index) => file(`d/${index}/other`, 'x'));
  registry.push('lib/wide', '1', {
    layers: [{ tar: tar(dir('d'), ...deep, ...wide) }, { tar: tar(...again, file(`${'e/'.repeat(120)}x`)) }],
  });
  registry.push('lib/layered', '1', {
    layers: Array.from({ length: 300 }, (_, index) => ({ tar: tar(file('a', `${index}`)) })),
  });
  registry.push('lib/both', '1', {
    layers: Array.from({ length: 30 }, (_, index) => ({
      tar: tar(...Array.from({ length: 40 }, (_each, place) => file(`d/${place}/${index}/f`, 'x'))),
    })),
  });
});
after(async () => registry[Symbol.asyncDispose]());

function runWithLimit(limit: number, cwd: string, argv: readonly string[]): Promise<ProgramResult> {
  return runProgram([...argv, '--no-cache'], { cwd, under: ['prlimit', `--nofile=${limit}:${limit}`] });
}

/** Returns the names that are no result of a command. */
function leftIn(directory: string): string[] {
  return readdirSync(directory).filter((name) => name !== 'out' && name !== 'out.tar');
}

const commands: readonly (readonly [string, (image: string) => readonly string[]])[] = [
  ['-d', (image) => [image, '-d', 'out']],
  ['verify', (image) => ['verify', image, '-d', 'out']],
  ['--replace', (image) => [image, '-d', 'out', '--replace=always']],
  ['-g', (image) => [image, '-d', 'out', '-g', '--replace=always']],
  ['-o', (image) => [image, '-o', 'out.tar']],
];

for (const limit of [30, 63, 66, 130, 289]) {
  void test(`a hard limit of ${limit} open files`, { skip: needs }, async () => {
    using scratch = new Scratch();
    const wideImage = registry.reference('lib/wide', '1');
    for (const [name, argv] of commands) {
      const result = await runWithLimit(limit, scratch.path, argv(wideImage));
      const said = `${name}: ${result.stderr}`;
      if (limit < 64) {
        assert.equal(result.exitCode, 7, said);
        assert.match(result.stderr, /limit of open files is below 64\nhint: raise the limit/);
      } else assert.equal(result.exitCode, 0, said);
      assert.deepEqual(leftIn(scratch.path), [], said);
    }
    if (limit < 64) return;

    const layered = registry.reference('lib/layered', '1');
    rmSync(scratch.join('out'), { recursive: true });
    const pulled = await runWithLimit(limit, scratch.path, [layered, '-d', 'out']);
    assert.equal(pulled.exitCode, 0, pulled.stderr);
    if (limit > 66) return;
    // All blobs are open at the same time.
    const archived = await runWithLimit(limit, scratch.path, [layered, '-o', 'out.tar']);
    assert.equal(archived.exitCode, 7, archived.stderr);
    assert.match(archived.stderr, /too many open files.*\nhint: raise the limit of open files/);
    assert.deepEqual(leftIn(scratch.path), []);
  });
}

void test(
  'a part of an image for which there are too few open files leaves no stage',
  { skip: needs },
  async () => {
    using scratch = new Scratch();
    const image = registry.reference('lib/both', '1');
    const exitCodes = new Set<number | null>();
    for (let limit = 64; limit < 82; limit += 2) {
      const result = await runWithLimit(limit, scratch.path, [image, '-d', 'out', '--path', 'd']);
      exitCodes.add(result.exitCode);
      assert.deepEqual(leftIn(scratch.path), [], `${limit}: ${result.stderr}`);
      rmSync(scratch.join('out'), { recursive: true, force: true });
    }
    assert.deepEqual(exitCodes, new Set([7, 0]));
  },
);

void test('the soft limit of open files is raised to the hard one', { skip: needs }, async () => {
  using scratch = new Scratch();
  const argv = [registry.reference('lib/wide', '1'), '-d', 'out', '--no-cache'];
  const result = await runProgram(argv, { cwd: scratch.path, under: ['prlimit', '--nofile=20:4096'] });
  assert.equal(result.exitCode, 0, result.stderr);
});
