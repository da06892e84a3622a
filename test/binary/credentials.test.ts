// Each source of credentials and client certificates works in a pull by the single binary, and no output
// shows a secret.
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { dir, file, tar } from '../support/archive.ts';
import { createAuthority } from '../support/certificates.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { programCommand, runProgram, Scratch, type ProgramOptions } from '../support/program.ts';

const built = programCommand.length === 1 ? false : 'needs DLROOTFS_BINARY: make test';

const PASSWORD = 'secret:w0rd/ü';
const ENCODED = Buffer.from(`me:${PASSWORD}`).toString('base64');
const image = { layers: [{ tar: tar(dir('etc'), file('etc/motd', 'hello\n')) }] };

function write(name: string, text: string, mode = 0o644): void {
  mkdirSync(path.dirname(name), { recursive: true });
  writeFileSync(name, text, { mode });
}

const auths = (host: string) => JSON.stringify({ auths: { [host]: { auth: ENCODED } } });

/** Makes a credential helper for docker's protocol: it reads the host from standard input and prints JSON. */
function helper(scratch: Scratch, name: string): string {
  const answer = JSON.stringify({ Username: 'me', Secret: PASSWORD });
  write(scratch.join('bin', `docker-credential-${name}`), `#!/bin/sh\ncat >&2\necho '${answer}'\n`, 0o755);
  return `${scratch.join('bin')}:${process.env['PATH']}`;
}

interface Given extends ProgramOptions {
  readonly flags?: readonly string[];
}

const ways: Readonly<Record<string, (scratch: Scratch, host: string) => Given>> = {
  '-u': () => ({ flags: ['-u', `me:${PASSWORD}`] }),
  '--password-stdin': () => ({ flags: ['-u', 'me', '--password-stdin'], stdin: PASSWORD }),
  DLROOTFS_CREDS: () => ({ environment: { DLROOTFS_CREDS: `me:${PASSWORD}` } }),
  '--authfile': (scratch, host) => {
    write(scratch.join('a.json'), auths(host));
    return { flags: ['--authfile', 'a.json'] };
  },
  REGISTRY_AUTH_FILE: (scratch, host) => {
    write(scratch.join('a.json'), auths(host));
    return { environment: { REGISTRY_AUTH_FILE: scratch.join('a.json') } };
  },
  DOCKER_AUTH_CONFIG: (_, host) => ({ environment: { DOCKER_AUTH_CONFIG: auths(host) } }),
  'XDG_RUNTIME_DIR/containers/auth.json': (scratch, host) => {
    write(scratch.join('run/containers/auth.json'), auths(host));
    return { environment: { XDG_RUNTIME_DIR: scratch.join('run') } };
  },
  '~/.config/containers/auth.json': (scratch, host) => {
    write(scratch.join('.config/containers/auth.json'), auths(host));
    return { environment: { HOME: scratch.path } };
  },
  '~/.docker/config.json': (scratch, host) => {
    write(scratch.join('.docker/config.json'), auths(host));
    return { environment: { HOME: scratch.path } };
  },
  '~/.dockercfg': (scratch, host) => {
    write(scratch.join('.dockercfg'), JSON.stringify({ [host]: { auth: ENCODED } }));
    return { environment: { HOME: scratch.path } };
  },
  'a helper for all registries': (scratch) => {
    write(scratch.join('config.json'), JSON.stringify({ credsStore: 'all' }));
    return { environment: { PATH: helper(scratch, 'all'), DOCKER_CONFIG: scratch.path } };
  },
  'a helper for this registry': (scratch, host) => {
    write(
      scratch.join('config.json'),
      JSON.stringify({ credsStore: 'none', credHelpers: { [host]: 'one' } }),
    );
    return { environment: { PATH: helper(scratch, 'one'), DOCKER_CONFIG: scratch.path } };
  },
};

for (const type of ['basic', 'bearer'] as const) {
  for (const [name, way] of Object.entries(ways)) {
    test(`binary: credentials by ${name}, ${type}`, { skip: built }, async () => {
      using scratch = new Scratch();
      await using registry = await FakeRegistry.start({
        auth: { type, users: { me: PASSWORD }, ...(type === 'bearer' && { private: /./ }) },
      });
      registry.push('lib/img', '1', image);
      const { flags = [], ...options } = way(scratch, registry.host);
      const argv = [registry.reference('lib/img', '1'), '-d', 'out', '--no-cache', '-v', ...flags];
      const { exitCode, stdout, stderr } = await runProgram(argv, { cwd: scratch.path, ...options });
      assert.equal(exitCode, 0, stderr);
      for (const secret of [PASSWORD, ENCODED, encodeURIComponent(PASSWORD)])
        assert.ok(!`${stdout}${stderr}`.includes(secret), `${stdout}${stderr}`);
    });
  }
}

test('binary: without credentials, exit 4', { skip: built }, async () => {
  using scratch = new Scratch();
  await using registry = await FakeRegistry.start({ auth: { type: 'basic', users: { me: PASSWORD } } });
  registry.push('lib/img', '1', image);
  const { exitCode, stderr } = await runProgram([registry.reference('lib/img', '1')], { cwd: scratch.path });
  assert.equal(exitCode, 4, stderr);
});

const authority = createAuthority();

const certificates: Readonly<Record<string, (scratch: Scratch, host: string) => Given>> = {
  'flags of their own': () => ({
    flags: ['--ca-file', 'ca.pem', '--cert-file', 'client.pem', '--key-file', 'client.key'],
  }),
  '--cert-dir': (scratch) => {
    const { cert, key } = authority.issue('client');
    write(scratch.join('dir/ca.crt'), authority.cert);
    write(scratch.join('dir/client.cert'), cert);
    write(scratch.join('dir/client.key'), key);
    return { flags: ['--cert-dir', 'dir'] };
  },
  'certs.d of the user': (scratch, host) => {
    const { cert, key } = authority.issue('client');
    const place = scratch.join('.config/containers/certs.d', host);
    write(`${place}/ca.crt`, authority.cert);
    write(`${place}/client.cert`, cert);
    write(`${place}/client.key`, key);
    return { environment: { HOME: scratch.path } };
  },
};

for (const [name, way] of Object.entries(certificates)) {
  test(`binary: a client certificate by ${name}`, { skip: built }, async () => {
    using scratch = new Scratch();
    await using registry = await FakeRegistry.start({ tls: { authority, clientCertificates: true } });
    registry.push('lib/img', '1', image);
    const client = authority.issue('client');
    write(scratch.join('ca.pem'), authority.cert);
    write(scratch.join('client.pem'), client.cert);
    write(scratch.join('client.key'), client.key);
    const { flags = [], ...options } = way(scratch, registry.host);
    const argv = [registry.reference('lib/img', '1'), '-d', 'out', '--no-cache', '--retry', '0'];
    const { exitCode, stderr } = await runProgram([...argv, ...flags], { cwd: scratch.path, ...options });
    assert.equal(exitCode, 0, stderr);
    const without = await runProgram([...argv, '-d', 'other', '--ca-file', 'ca.pem'], { cwd: scratch.path });
    assert.equal(without.exitCode, 5, without.stderr);
  });
}
