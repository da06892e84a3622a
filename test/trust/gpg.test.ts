import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { OpenDirectory } from '../../src/sys/open-directory.ts';
import { namelessFile } from '../../src/sys/temp-file.ts';
import { findGpgv, keyringOf, verifyGpg } from '../../src/trust/gpg.ts';
import { missing } from '../support/debian.ts';
import { Scratch } from '../support/program.ts';

describe('signatures of GPG', { skip: missing('gpg', 'gpgv') }, () => {
  const scratch = new Scratch();
  const environment = { ...process.env, GNUPGHOME: scratch.join('gnupg') };
  let keyring: Buffer;

  function gpg(...argv: readonly string[]): Buffer {
    const flags = ['--batch', '--quiet', '--passphrase', '', '--pinentry-mode', 'loopback', '--trust-model'];
    return execFileSync('gpg', [...flags, 'always', ...argv], {
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  /** Returns a message with this content, signed with the keys of these names. */
  function signed(content: Uint8Array, ...names: readonly string[]): Buffer {
    writeFileSync(scratch.join('content'), content);
    const keys = names.flatMap((name) => ['-u', `${name}@example.com`]);
    return gpg(...keys, '--output', '-', '--sign', scratch.join('content'));
  }

  async function verify(signature: Uint8Array): Promise<string> {
    using directory = OpenDirectory.open(scratch.path);
    const payload = await verifyGpg(signature, {
      gpgv: findGpgv(process.env)!,
      keyring,
      temporaryFile: () => namelessFile(directory),
      signal: new AbortController().signal,
    });
    return Buffer.from(payload).toString();
  }

  before(() => {
    mkdirSync(scratch.join('gnupg'), { mode: 0o700 });
    for (const name of ['one', 'two', 'other'])
      gpg('--quick-gen-key', `${name}@example.com`, 'ed25519', 'sign', '1d');
    keyring = keyringOf([gpg('--export', 'one@example.com', 'two@example.com')]);
  });
  after(() => {
    execFileSync('gpgconf', ['--kill', 'all'], { env: environment });
    scratch[Symbol.dispose]();
  });

  test('one of the keys has signed: what it has signed', async () => {
    for (const name of ['one', 'two']) assert.equal(await verify(signed(Buffer.from('x'), name)), 'x');
  });

  test('two of the keys have signed one message: refused', async () => {
    await assert.rejects(verify(signed(Buffer.from('x'), 'one', 'two')), {
      message: 'it holds several signatures',
    });
  });

  test('one of the keys and another one have signed: refused', async () => {
    const message = 'it was not made with a key of the policy';
    await assert.rejects(verify(signed(Buffer.from('x'), 'one', 'other')), { message });
    await assert.rejects(verify(signed(Buffer.from('x'), 'other')), { message });
  });

  test('a small message with more than 1 MiB in it: refused, whoever has signed', async () => {
    const most = Buffer.alloc(1024 * 1024, 'x');
    assert.equal((await verify(signed(most, 'one'))).length, most.length);
    const more = signed(Buffer.alloc(32 * 1024 * 1024), 'one');
    assert.ok(more.length < 100_000, `${more.length} bytes`);
    await assert.rejects(verify(more), { message: 'it contains more than 1048576 bytes' });
  });
});
