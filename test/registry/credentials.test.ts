import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { UsageError } from '../../src/errors.ts';
import { Reference } from '../../src/oci/reference.ts';
import { askHelper, findCredential, HelperError } from '../../src/registry/auth/credentials.ts';
import type { RegistryOptions } from '../../src/registry/registry-options.ts';
import { Scratch } from '../support/program.ts';

const signal = new AbortController().signal;
const auths = (user: string, key = 'quay.io') =>
  JSON.stringify({ auths: { [key]: { auth: Buffer.from(`${user}:secret-${user}`).toString('base64') } } });

function write(file: string, text: string): void {
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, text);
}

interface Search {
  readonly notices: string[];
  readonly find: (image?: string) => Promise<string | undefined>;
}

function search(options: Partial<RegistryOptions>): Search {
  const notices: string[] = [];
  const all: RegistryOptions = {
    environment: {},
    report: (event) => event.type === 'notice' && notices.push(event.message),
    ...options,
  };
  const find = async (image = 'quay.io/team/app') => {
    const credential = await findCredential(Reference.parse(image), all);
    if (credential === undefined) return undefined;
    return credential.kind === 'password' ? credential.username : `${credential.kind} ${credential.token}`;
  };
  return { notices, find };
}

test('sources come in the documented order, each only when those before have nothing', async () => {
  using scratch = new Scratch();
  const environment: Record<string, string> = {
    HOME: scratch.join('home'),
    XDG_RUNTIME_DIR: scratch.join('run'),
    XDG_CONFIG_HOME: scratch.join('config'),
    DOCKER_CONFIG: scratch.join('docker'),
  };
  const steps: readonly (readonly [user: string, make: () => void])[] = [
    [
      'dockercfg',
      () => write(scratch.join('home/.dockercfg'), JSON.stringify(JSON.parse(auths('dockercfg')).auths)),
    ],
    ['docker', () => write(scratch.join('docker/config.json'), auths('docker'))],
    ['variable', () => (environment['DOCKER_AUTH_CONFIG'] = auths('variable'))],
    ['config', () => write(scratch.join('config/containers/auth.json'), auths('config'))],
    ['run', () => write(scratch.join('run/containers/auth.json'), auths('run'))],
  ];
  assert.equal(await search({ environment }).find(), undefined);
  for (const [user, make] of steps) {
    make();
    assert.equal(await search({ environment }).find(), user);
  }
  write(scratch.join('named.json'), auths('named'));
  environment['REGISTRY_AUTH_FILE'] = scratch.join('named.json');
  assert.equal(await search({ environment }).find(), 'named');
  write(scratch.join('option.json'), auths('option'));
  const authFile = scratch.join('option.json');
  assert.equal(await search({ environment, authFile }).find(), 'option');
  const credentials = { username: 'given', password: 'x' };
  assert.equal(await search({ environment, authFile, credentials }).find(), 'given');
  assert.equal(await search({ environment, authFile, credentials, noCredentials: true }).find(), undefined);
  assert.equal(await search({ environment, registryToken: 't' }).find(), 'registry-token t');
});

test('without DOCKER_CONFIG and XDG_CONFIG_HOME the home directory counts', async () => {
  using scratch = new Scratch();
  const environment = { HOME: scratch.path };
  write(scratch.join('.docker/config.json'), auths('docker'));
  assert.equal(await search({ environment }).find(), 'docker');
  write(scratch.join('.config/containers/auth.json'), auths('config'));
  assert.equal(await search({ environment }).find(), 'config');
});

test('a named file is the only one, and one that cannot be read is a usage error', async () => {
  using scratch = new Scratch();
  write(scratch.join('.docker/config.json'), auths('docker'));
  write(scratch.join('other.json'), auths('other', 'ghcr.io'));
  const environment = { HOME: scratch.path };
  assert.equal(await search({ environment, authFile: scratch.join('other.json') }).find(), undefined);
  await assert.rejects(search({ environment, authFile: scratch.join('missing.json') }).find(), UsageError);
  await assert.rejects(
    search({ environment: { ...environment, REGISTRY_AUTH_FILE: scratch.join('missing.json') } }).find(),
    UsageError,
  );
});

test('a broken file is a notice that does not repeat its text, and the search goes on', async () => {
  using scratch = new Scratch();
  write(scratch.join('.config/containers/auth.json'), '{"auths": {"quay.io": {"auth": "c2VjcmV0"');
  write(scratch.join('.docker/config.json'), auths('docker'));
  const { find, notices } = search({ environment: { HOME: scratch.path } });
  assert.equal(await find(), 'docker');
  assert.equal(notices.length, 1);
  assert.match(notices[0]!, /auth\.json: it is not JSON/);
  assert.doesNotMatch(notices[0]!, /c2Vj/);
});

test('a broken entry is a notice, and the search goes on', async () => {
  using scratch = new Scratch();
  write(
    scratch.join('.config/containers/auth.json'),
    JSON.stringify({ auths: { 'quay.io': { auth: 'bm90aGluZw==' } } }),
  );
  write(scratch.join('.docker/config.json'), auths('docker'));
  const { find, notices } = search({ environment: { HOME: scratch.path } });
  assert.equal(await find(), 'docker');
  assert.match(notices.join('\n'), /quay\.io/);
  assert.doesNotMatch(notices.join('\n'), /bm90/);
});

/** Makes a helper program that records its input, and prints the output of `script`. */
function helper(scratch: Scratch, name: string, script: string): string {
  const file = scratch.join('bin', `docker-credential-${name}`);
  write(
    file,
    `#!/bin/sh\necho "$@" > ${scratch.path}/argv\ncat > ${scratch.path}/stdin\nenv > ${scratch.path}/env\n${script}\n`,
  );
  chmodSync(file, 0o755);
  return file;
}

const answer = (user: string, secret: string) =>
  `echo '{"ServerURL":"x","Username":"${user}","Secret":"${secret}"}'`;

function withHelpers(scratch: Scratch, config: unknown): Search {
  write(scratch.join('.docker/config.json'), JSON.stringify(config));
  return search({ environment: { HOME: scratch.path, PATH: `${scratch.join('bin')}:/usr/bin:/bin` } });
}

test('a helper is run without a shell, asked on stdin, and believed', async () => {
  using scratch = new Scratch();
  helper(scratch, 'vault', answer('bob', 'pw'));
  const { find, notices } = withHelpers(scratch, { credHelpers: { 'quay.io': 'vault' } });
  assert.equal(await find(), 'bob');
  assert.deepEqual(notices, []);
  assert.equal(readFileSync(scratch.join('argv'), 'utf8'), 'get\n');
  assert.equal(readFileSync(scratch.join('stdin'), 'utf8'), 'quay.io');
});

test('the user name <token> means an identity token', async () => {
  using scratch = new Scratch();
  helper(scratch, 'vault', answer('<token>', 'refresh'));
  assert.equal(await withHelpers(scratch, { credsStore: 'vault' }).find(), 'identity-token refresh');
  assert.equal(readFileSync(scratch.join('stdin'), 'utf8'), 'quay.io');
});

test('a store is asked for Hub by the address that docker uses', async () => {
  using scratch = new Scratch();
  helper(scratch, 'store', answer('hub', 'pw'));
  assert.equal(await withHelpers(scratch, { credsStore: 'store' }).find('alpine'), 'hub');
  assert.equal(readFileSync(scratch.join('stdin'), 'utf8'), 'https://index.docker.io/v1/');
});

test('a helper of the host comes before the store, and the file where both have nothing', async () => {
  using scratch = new Scratch();
  helper(scratch, 'one', answer('one', 'pw'));
  helper(scratch, 'two', answer('two', 'pw'));
  helper(scratch, 'none', 'echo credentials not found in native keychain; exit 1');
  const file = JSON.parse(auths('file')) as object;
  assert.equal(
    await withHelpers(scratch, { ...file, credHelpers: { 'quay.io': 'one' }, credsStore: 'two' }).find(),
    'one',
  );
  assert.equal(
    await withHelpers(scratch, { ...file, credHelpers: { 'quay.io': 'none' }, credsStore: 'two' }).find(),
    'two',
  );
  const { find, notices } = withHelpers(scratch, { ...file, credsStore: 'none' });
  assert.equal(await find(), 'file');
  assert.deepEqual(notices, []);
});

test('a missing helper is named, and the pull goes on without it as docker does', async () => {
  using scratch = new Scratch();
  const { find, notices } = withHelpers(scratch, { credHelpers: { 'quay.io': 'nowhere' } });
  assert.equal(await find(), undefined);
  assert.match(notices.join('\n'), /docker-credential-nowhere is not in PATH.*config\.json/);
});

const badHelpers: readonly (readonly [what: string, script: string, message: RegExp])[] = [
  ['an error', 'echo "the keyring is locked"; exit 1', /failed: the keyring is locked/],
  ['an error without words', 'exit 3', /exit code 3/],
  ['no JSON', 'echo secret-text', /no credential/],
  ['JSON of another shape', `echo '{"Secret": 1}'`, /no credential/],
  ['control characters', String.raw`printf '\033[31mred'; exit 1`, /\\x1b\[31mred/],
  ['too much', 'yes', /printed too much/],
  ['nothing for too long', 'exec sleep 30', /did not answer/],
];

for (const [what, script, message] of badHelpers) {
  test(`a helper that answers ${what}`, async () => {
    using scratch = new Scratch();
    helper(scratch, 'bad', script);
    const environment = { PATH: `${scratch.join('bin')}:/usr/bin:/bin` };
    await assert.rejects(
      askHelper('bad', 'quay.io', environment, signal, 1000),
      (error) =>
        error instanceof HelperError && message.test(error.message) && !/secret-text/.test(error.message),
    );
  });
}

test('a helper that waits is ended by the signal', async () => {
  using scratch = new Scratch();
  helper(scratch, 'slow', 'exec sleep 30');
  const environment = { PATH: `${scratch.join('bin')}:/usr/bin:/bin` };
  const reason = new Error('interrupted');
  const controller = new AbortController();
  setTimeout(() => controller.abort(reason), 100);
  await assert.rejects(askHelper('slow', 'quay.io', environment, controller.signal), reason);
});

test('a name that is a path is no helper', async () => {
  await assert.rejects(askHelper('../../bin/sh', 'quay.io', { PATH: '/bin' }, signal), {
    name: 'Error',
    message: '"../../bin/sh" is not a name of a credential helper',
  });
});
