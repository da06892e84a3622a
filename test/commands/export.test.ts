import assert from 'node:assert/strict';
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { zstdDecompressSync, gunzipSync } from 'node:zlib';
import { exportArchive, IntegrityError } from '../../src/index.ts';
import { dir, file, hardlink, symlink, tar, whiteout } from '../support/archive.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { programCommand, runProgram, Scratch } from '../support/program.ts';
import { printTree } from '../support/tree.ts';

const layers = [
  {
    tar: tar(dir('etc'), file('etc/motd', 'old\n'), file('etc/gone', 'x'), hardlink('etc/issue', 'etc/motd')),
  },
  { tar: tar(whiteout('etc/gone'), file('etc/motd', 'new\n', { mode: 0o600 }), symlink('bin', 'usr/bin')) },
];

test('-o: the same bytes every time and in every compression, and the tree of -d', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  registry.push('lib/img', '1', { layers });
  const pull = async (...flags: readonly string[]) => {
    const argv = [registry.reference('lib/img', '1'), '--no-cache', ...flags];
    const result = await runProgram(argv, { cwd: scratch.path });
    assert.equal(result.exitCode, 0, result.stderr);
    return result;
  };
  for (const name of ['a.tar', 'b.tar', 'c.tar.gz', 'd.tar.zst']) {
    const { stdout } = await pull('-o', name);
    assert.match(stdout, /^Downloading layers:\n(\t[0-9a-f]{12} \.\.\. done\n){2}\nRootfs of \S+ in \S+\n$/m);
  }
  const bytes = (name: string) => readFileSync(scratch.join(name));
  assert.deepEqual(bytes('b.tar'), bytes('a.tar'));
  assert.deepEqual(gunzipSync(bytes('c.tar.gz')), bytes('a.tar'));
  assert.deepEqual(zstdDecompressSync(bytes('d.tar.zst')), bytes('a.tar'));
  const [command, ...words] = programCommand;
  const piped = spawnSync(command!, [...words, 'docker-archive:x', '-o', '-'], { cwd: scratch.path });
  assert.deepEqual([piped.status, piped.stdout.length], [3, 0], 'nothing but the archive on standard output');
  await pull('-d', 'out', '--no-json');
  mkdirSync(scratch.join('untarred'));
  execFileSync('tar', ['-xpf', scratch.join('a.tar'), '-C', scratch.join('untarred')]);
  const tree = (name: string) => printTree(scratch.join(name), { hide: ['time'] });
  assert.equal(tree('untarred'), tree('out'));
  assert.match(tree('out'), /motd/);
});

test('-o -: the very bytes of a file, and an archive of docker save on standard input gives the same', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  const { configDigest, blobs } = registry.push('lib/img', '1', { layers });
  const reference = registry.reference('lib/img', '1');
  await runProgram([reference, '--no-cache', '-o', 'a.tar'], { cwd: scratch.path });
  const [command, ...words] = programCommand;
  const piped = async (argv: readonly string[], input?: Uint8Array) => {
    writeFileSync(scratch.join('in'), input ?? '');
    const line = `${[command!, ...words, ...argv].map((word) => `'${word}'`).join(' ')} <in >out.tar`;
    const result = await runInShell(line, scratch.path);
    assert.equal(result.status, 0, result.stderr);
    return readFileSync(scratch.join('out.tar'));
  };
  const expected = readFileSync(scratch.join('a.tar'));
  assert.deepEqual(await piped([reference, '--no-cache', '-o', '-']), expected);
  // `docker save` writes a manifest, the config, and each layer's tar.
  const names = layers.map((_, n) => `${n}/layer.tar`);
  const listing = [{ Config: 'config.json', RepoTags: ['lib/img:1'], Layers: names }];
  const saved = tar(
    file('manifest.json', JSON.stringify(listing)),
    file('config.json', Buffer.from(blobs.get(configDigest)!)),
    ...layers.map(({ tar: bytes }, n) => file(names[n]!, Buffer.from(bytes))),
  );
  assert.deepEqual(await piped(['-', '--no-cache', '-o', '-', '--platform', 'linux/amd64'], saved), expected);
  assert.deepEqual(readdirSync(scratch.path).toSorted(), ['a.tar', 'in', 'out.tar']);
});

test('exportArchive: a stream is destroyed where the image is malformed, and got nothing', async () => {
  await using registry = await FakeRegistry.start();
  registry.push('lib/img', '1', { layers: [{ tar: tar(hardlink('a', 'b')) }] });
  const output = new PassThrough();
  await assert.rejects(
    exportArchive(registry.reference('lib/img', '1'), output, { cache: false }),
    IntegrityError,
  );
  assert.ok(output.destroyed);
  assert.equal(output.readableLength, 0);
});

/** Runs a shell command line. The registry runs in this process, so this must not block. */
async function runInShell(line: string, cwd: string): Promise<{ status: number; stderr: string }> {
  return await new Promise((resolve) => {
    execFile('sh', ['-c', line], { cwd }, (error, _stdout, stderr) =>
      resolve({ status: Number(error?.code ?? 0), stderr }),
    );
  });
}
