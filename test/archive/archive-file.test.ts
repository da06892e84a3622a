import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';
import { DestinationError } from '../../src/errors.ts';
import { ArchiveFile } from '../../src/archive/archive-file.ts';
import { temporaryDirectory } from './harness.ts';

async function writeAll(file: ArchiveFile, ...pieces: readonly Buffer[]): Promise<void> {
  for (const piece of pieces) await file.write(piece);
}

describe('an ArchiveFile', () => {
  it('appears complete, replaces the earlier file, and removes no other', async (t) => {
    const directory = temporaryDirectory(t);
    const name = path.join(directory, 'rootfs.tar');
    writeFileSync(name, 'old');
    const file = await ArchiveFile.create(name);
    await writeAll(file, Buffer.from('new '), Buffer.from('content'));
    assert.equal(readFileSync(name, 'utf8'), 'old');
    await file.commit();
    assert.equal(readFileSync(name, 'utf8'), 'new content');
    assert.deepEqual(readdirSync(directory), ['rootfs.tar']);
  });

  it('has a name of any length that the file system takes', async (t) => {
    const directory = temporaryDirectory(t);
    for (const name of [`${'x'.repeat(251)}.tar`, `${'ü'.repeat(125)}.tar`]) {
      const file = await ArchiveFile.create(path.join(directory, name));
      await writeAll(file, Buffer.from('content'));
      await file.commit();
      assert.equal(readFileSync(path.join(directory, name), 'utf8'), 'content');
    }
  });

  it('leaves nothing when it is discarded', async (t) => {
    const directory = temporaryDirectory(t);
    const file = await ArchiveFile.create(path.join(directory, 'rootfs.tar'));
    await writeAll(file, Buffer.from('half'));
    await file.discard();
    assert.deepEqual(readdirSync(directory), []);
  });

  it('has the mode that the umask leaves', async (t) => {
    const name = path.join(temporaryDirectory(t), 'rootfs.tar');
    const file = await ArchiveFile.create(name);
    await writeAll(file);
    await file.commit();
    assert.equal(statSync(name).mode & 0o777, 0o666 & ~process.umask());
  });

  it('is written through a symlink', async (t) => {
    const directory = temporaryDirectory(t);
    mkdirSync(path.join(directory, 'there'));
    writeFileSync(path.join(directory, 'there/real.tar'), 'old');
    symlinkSync('there/real.tar', path.join(directory, 'link.tar'));
    const file = await ArchiveFile.create(path.join(directory, 'link.tar'));
    await writeAll(file, Buffer.from('new'));
    await file.commit();
    assert.equal(readFileSync(path.join(directory, 'there/real.tar'), 'utf8'), 'new');
    assert.deepEqual(readdirSync(path.join(directory, 'there')), ['real.tar']);
  });

  it('writes into a FIFO without replacing it', async (t) => {
    const directory = temporaryDirectory(t);
    const name = path.join(directory, 'pipe');
    execFileSync('mkfifo', [name]);
    const reader = spawn('cat', [name], { stdio: ['ignore', 'pipe', 'inherit'] });
    const file = await ArchiveFile.create(name);
    await writeAll(file, Buffer.from('through the pipe'));
    await file.commit();
    assert.equal(Buffer.concat(await reader.stdout.toArray()).toString(), 'through the pipe');
    assert.ok(statSync(name).isFIFO());
  });

  it('refuses what cannot be written, by its name', async (t) => {
    const directory = temporaryDirectory(t);
    for (const name of [path.join(directory, 'missing/rootfs.tar'), directory]) {
      await assert.rejects(ArchiveFile.create(name), (error: Error) => {
        assert.ok(error instanceof DestinationError, error.stack);
        assert.ok(error.message.startsWith(`cannot write ${name}: `));
        return true;
      });
    }
  });
});
