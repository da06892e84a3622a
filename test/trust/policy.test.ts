/** The host's policy.json, compared with skopeo: dlrootfs accepts an image if skopeo copies it. */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { file, tar } from '../support/archive.ts';
import { DockerRegistry } from '../support/docker-registry.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { missing } from '../support/debian.ts';
import { Reference } from '../../src/oci/reference.ts';
import { scopesOf } from '../../src/trust/scopes.ts';
import { runHere } from '../support/in-process.ts';
import { LocalServer } from '../support/local-server.ts';
import { noOtherUser } from '../support/other-user.ts';
import { Cosign, Skopeo } from '../support/peers.ts';
import { runProgram, Scratch } from '../support/program.ts';
import { signingKey, simpleSignature, simpleSigning, tagSignatures } from '../support/signatures.ts';
import { PolicySigstore } from '../support/policy-sigstore.ts';

const layer = { tar: tar(file('etc/motd', 'hello')) };
const accept = { type: 'insecureAcceptAnything' };
const reject = { type: 'reject' };

const scratch = new Scratch();
const write = (name: string, content: string | Uint8Array): string => {
  const place = scratch.join(name);
  mkdirSync(path.dirname(place), { recursive: true });
  writeFileSync(place, content);
  return place;
};

const base64 = (place: string): string => readFileSync(place).toString('base64');

let policies = 0;
/** Writes the file of a policy; returns its path. */
const policyFile = (policy: unknown): string =>
  write(`policy-${(policies += 1)}.json`, typeof policy === 'string' ? policy : JSON.stringify(policy));

/** Returns the words of the refusal; undefined if the image is accepted. */
async function refusal(
  image: string,
  flags: readonly string[],
  home = scratch.path,
): Promise<string | undefined> {
  const { exitCode, stderr } = await runHere(['ls', image, '--no-cache', ...flags], {
    HOME: home,
  });
  assert.ok(exitCode === 0 || exitCode === 6, `${exitCode} ${stderr}`);
  return exitCode === 0 ? undefined : stderr;
}

const gpgRun = (...argv: readonly string[]): string =>
  execFileSync('gpg', ['--batch', '--quiet', '--passphrase', '', '--pinentry-mode', 'loopback', ...argv], {
    env: { ...process.env, GNUPGHOME: scratch.join('gnupg') },
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });

/** Returns a message of GPG without a signature. */
const unsigned = (): Buffer =>
  execFileSync('gpg', ['--batch', '--store'], {
    env: { ...process.env, GNUPGHOME: scratch.join('gnupg') },
    input: '{}',
    stdio: 'pipe',
  });

after(() => scratch[Symbol.dispose]());

describe('policy.json before skopeo and dlrootfs', () => {
  const cosign = new Cosign(scratch);
  const sigstore = new PolicySigstore(scratch);
  let skopeo: Skopeo;
  let docker: DockerRegistry;
  let key: string;
  let other: string;
  let gpg: string;

  /**
   * Writes the same section for every registry. skopeo gets the directory by a flag, dlrootfs finds it in
   * HOME.
   */
  const registries = (section: object, home = scratch.path): string => {
    const text = JSON.stringify({ 'default-docker': section });
    const place = path.relative(scratch.path, path.join(home, '.config/containers/registries.d/all.yaml'));
    return path.dirname(write(place, text));
  };

  before(async () => {
    [docker, key] = await Promise.all([DockerRegistry.start(), cosign.generateKeys()]);
    other = write('other.pub', signingKey().pem);
    const lookaside = `file://${scratch.join('lookaside')}`;
    const directory = registries({
      'use-sigstore-attachments': true,
      lookaside,
      'lookaside-staging': lookaside,
    });
    registries({ lookaside }, scratch.join('without'));
    skopeo = new Skopeo(scratch, scratch.join('unused'), directory);
    writeFileSync(scratch.join('no-password'), '\n');
    mkdirSync(scratch.join('gnupg'), { mode: 0o700 });
    const environment = { GNUPGHOME: scratch.join('gnupg') };
    for (const name of ['one', 'two']) {
      gpgRun('--quick-gen-key', `${name}@example.com`, 'ed25519', 'sign', '1d');
      write(`${name}.asc`, gpgRun('--armor', '--export', `${name}@example.com`));
    }
    gpg = scratch.join('one.asc');
    await docker.push('plain', 'latest', { layers: [layer] });
    const byCosign = await docker.push('by-cosign', 'latest', { layers: [layer] });
    await cosign.sign(docker.reference('by-cosign', byCosign.digest));
    const copy = (target: string, ...flags: readonly string[]) => {
      const names = [`docker://${docker.reference('plain')}`, `docker://${docker.host}/${target}`];
      const argv = ['copy', '--src-tls-verify=false', '--dest-tls-verify=false', ...flags, ...names];
      return skopeo.run(argv, environment);
    };
    const byKey = ['--sign-by-sigstore-private-key', scratch.join('cosign.key')];
    await copy('team/app:1.0', ...byKey, '--sign-passphrase-file', scratch.join('no-password'));
    await copy('team/gpg:1.0', '--sign-by', 'one@example.com');
    await sigstore.push(docker, 'by-identity');
    execFileSync('gpgconf', ['--kill', 'all'], { env: { ...process.env, ...environment } });
  });

  after(async () => {
    await docker[Symbol.asyncDispose]();
  });

  /** The requirements and the image of each case, and true if both programs accept it. */
  const table: Readonly<
    Record<string, readonly [requirements: () => unknown, image: string, accepted: boolean]>
  > = {
    anything: [() => [accept], 'plain:latest', true],
    reject: [() => [reject], 'plain:latest', false],
    'anything, and reject': [() => [accept, reject], 'plain:latest', false],
    'a key, an image that skopeo has signed': [() => [byKey({})], 'team/app:1.0', true],
    'keyPaths with a wrong key first': [() => [byKey({}, { keyPaths: [other, key] })], 'team/app:1.0', true],
    keyData: [() => [byKey({}, { keyData: base64(key) })], 'team/app:1.0', true],
    keyDatas: [() => [byKey({}, { keyDatas: [base64(other), base64(key)] })], 'team/app:1.0', true],
    'another key': [() => [byKey({}, { keyPath: other })], 'team/app:1.0', false],
    'a key that does not exist': [() => [byKey({}, { keyPath: '/nonexistent' })], 'team/app:1.0', false],
    'a key that is a directory': [() => [byKey({}, { keyPath: '/etc' })], 'team/app:1.0', false],
    'a key without end': [() => [byKey({}, { keyPath: '/dev/zero' })], 'team/app:1.0', false],
    'two keys, both required': [() => [byKey({}), byKey({}, { keyPath: other })], 'team/app:1.0', false],
    'an image without signature': [() => [byKey({})], 'plain:latest', false],
    'no entry of the log': [
      () => [byKey({}, { keyPath: key, rekorPublicKeyPath: other })],
      'team/app:1.0',
      false,
    ],
    'cosign, by the default identity': [() => [byKey({})], 'by-cosign:latest', false],
    'cosign, matchRepository': [() => [byKey({ type: 'matchRepository' })], 'by-cosign:latest', true],
    matchExact: [() => [byKey({ type: 'matchExact' })], 'team/app:1.0', true],
    exactReference: [
      () => [byKey({ type: 'exactReference', dockerReference: `${docker.host}/team/app:1.0` })],
      'team/app:1.0',
      true,
    ],
    'exactReference of another tag': [
      () => [byKey({ type: 'exactReference', dockerReference: `${docker.host}/team/app:2.0` })],
      'team/app:1.0',
      false,
    ],
    exactRepository: [
      () => [byKey({ type: 'exactRepository', dockerRepository: `${docker.host}/team/app` })],
      'team/app:1.0',
      true,
    ],
    'exactRepository of another': [
      () => [byKey({ type: 'exactRepository', dockerRepository: 'team/app' })],
      'team/app:1.0',
      false,
    ],
    'remapIdentity to itself': [
      () => [byKey({ type: 'remapIdentity', prefix: docker.host, signedPrefix: docker.host })],
      'team/app:1.0',
      true,
    ],
    'remapIdentity to another': [
      () => [
        byKey({ type: 'remapIdentity', prefix: `${docker.host}/team`, signedPrefix: 'example.com/team' }),
      ],
      'team/app:1.0',
      false,
    ],
    GPG: [() => [byGpg({})], 'team/gpg:1.0', true],
    'GPG, keyData': [() => [byGpg({ keyData: base64(gpg) })], 'team/gpg:1.0', true],
    'GPG, keyPaths': [() => [byGpg({ keyPaths: [scratch.join('two.asc'), gpg] })], 'team/gpg:1.0', true],
    'GPG, another key': [() => [byGpg({ keyPath: scratch.join('two.asc') })], 'team/gpg:1.0', false],
    'GPG, no key': [() => [byGpg({ keyPath: other })], 'team/gpg:1.0', false],
    'GPG, another name': [
      () => [
        byGpg({
          keyPath: gpg,
          signedIdentity: { type: 'exactRepository', dockerRepository: 'example.com/gpg' },
        }),
      ],
      'team/gpg:1.0',
      false,
    ],
    'GPG, no signature': [() => [byGpg({})], 'plain:latest', false],
    X509Certificates: [() => [byGpg({ keyType: 'X509Certificates', keyPath: gpg })], 'team/gpg:1.0', false],
    signedBaseLayer: [
      () => [{ type: 'signedBaseLayer', baseLayerIdentity: { type: 'matchExact' } }],
      'plain:latest',
      false,
    ],
    'GPG and Sigstore, of which the image has one': [() => [byGpg({}), byKey({})], 'team/gpg:1.0', false],
    'an identity': [() => [sigstore.rule({})], 'by-identity:latest', true],
    'an identity of another provider': [
      () => [sigstore.rule({ oidcIssuer: 'https://other.example' })],
      'by-identity:latest',
      false,
    ],
    'an identity with another address': [
      () => [sigstore.rule({ subjectEmail: 'eve@example.com' })],
      'by-identity:latest',
      false,
    ],
    'an identity by another authority': [
      () => [sigstore.rule({ caData: sigstore.otherAuthority })],
      'by-identity:latest',
      false,
    ],
    'an identity in another log': [() => [sigstore.rule({}, base64(other))], 'by-identity:latest', false],
    'an identity, of a signature by a key': [() => [sigstore.rule({})], 'team/app:1.0', false],
  };

  const byKey = (signedIdentity: object, keys: object = { keyPath: key }): object => ({
    type: 'sigstoreSigned',
    ...keys,
    ...('type' in signedIdentity && { signedIdentity }),
  });
  const byGpg = (members: object): object => {
    const hasKey = ['keyPath', 'keyPaths', 'keyData'].some((name) => Object.hasOwn(members, name));
    return { type: 'signedBy', keyType: 'GPGKeys', ...(hasKey ? {} : { keyPath: gpg }), ...members };
  };

  for (const [name, [requirements, image, accepted]] of Object.entries(table))
    test(`${accepted ? 'accepted' : 'refused'}: ${name}`, async () => {
      const policy = policyFile({ default: requirements() });
      const [bySkopeo, here] = await Promise.all([
        skopeo.pull(`${docker.host}/${image}`, policy),
        refusal(`${docker.host}/${image}`, ['--policy', policy]),
      ]);
      assert.equal(bySkopeo === undefined, accepted, `skopeo: ${bySkopeo}`);
      assert.equal(here === undefined, accepted, `dlrootfs: ${here}`);
      if (here !== undefined) assert.match(here, /the policy .* refuses .*: (?:reject|requirement \d)/);
    });

  describe('scopes', () => {
    /** The value of "docker" in "transports" of each case, and true if both accept team/app:1.0. */
    const scopes: Readonly<Record<string, readonly [() => Readonly<Record<string, unknown>>, boolean]>> = {
      'the name with its tag': [() => ({ [`${docker.host}/team/app:1.0`]: [accept] }), true],
      'another tag': [() => ({ [`${docker.host}/team/app:2.0`]: [accept] }), false],
      'the repository': [() => ({ [`${docker.host}/team/app`]: [accept] }), true],
      'the namespace': [() => ({ [`${docker.host}/team`]: [accept] }), true],
      'half a namespace': [() => ({ [`${docker.host}/te`]: [accept] }), false],
      'the host with its port': [() => ({ [docker.host]: [accept] }), true],
      'the host without its port': [() => ({ '127.0.0.1': [accept] }), false],
      'a wildcard': [() => ({ '*.0.0.1': [accept] }), true],
      'a wildcard of the last label': [() => ({ '*.1': [accept] }), true],
      'the more specific one': [
        () => ({ [docker.host]: [accept], [`${docker.host}/team`]: [reject] }),
        false,
      ],
      'the transport': [() => ({ '': [accept] }), true],
      'a scope rather than the transport': [() => ({ '': [accept], [docker.host]: [reject] }), false],
    };
    for (const [name, [make, accepted]] of Object.entries(scopes))
      test(name, async () => {
        const policy = policyFile({ default: [reject], transports: { docker: make() } });
        const image = `${docker.host}/team/app:1.0`;
        assert.equal((await skopeo.pull(image, policy)) === undefined, accepted);
        assert.equal((await refusal(image, ['--policy', policy])) === undefined, accepted);
      });

    test('a digest', async () => {
      const { digest } = await docker.push('plain', 'latest', { layers: [layer] });
      const image = `${docker.host}/plain@${digest}`;
      for (const [scope, accepted] of [
        [image, true],
        [`${docker.host}/plain:latest`, false],
      ] as const) {
        const policy = policyFile({ default: [reject], transports: { docker: { [scope]: [accept] } } });
        assert.equal((await skopeo.pull(image, policy)) === undefined, accepted);
        assert.equal((await refusal(image, ['--policy', policy])) === undefined, accepted);
      }
    });

    test('layouts and archives', async () => {
      const layout = scratch.join('layouts/app');
      const ociArchive = scratch.join('app-oci.tar');
      const dockerArchive = scratch.join('app-docker.tar');
      mkdirSync(scratch.join('layouts'));
      const all = policyFile({ default: [accept] });
      for (const target of [
        `oci:${layout}`,
        `oci-archive:${ociArchive}`,
        `docker-archive:${dockerArchive}:app:1`,
      ])
        await skopeo.run([
          '--policy',
          all,
          'copy',
          '--src-tls-verify=false',
          `docker://${docker.reference('plain')}`,
          target,
        ]);
      symlinkSync(layout, scratch.join('link'));
      const cases = [
        [`oci:${layout}`, 'oci', layout, true],
        [`oci:${layout}`, 'oci', scratch.join('layouts'), true],
        [`oci:${layout}`, 'oci', scratch.join('lay'), false],
        [`oci:${layout}`, 'oci-archive', layout, false],
        [`oci:${scratch.join('link')}`, 'oci', layout, true],
        [`oci:${scratch.join('link')}`, 'oci', scratch.join('link'), false],
        [`oci-archive:${ociArchive}`, 'oci-archive', ociArchive, true],
        [`docker-archive:${dockerArchive}`, 'docker-archive', '', true],
        [`docker-archive:${dockerArchive}`, 'oci', '', false],
      ] as const;
      for (const [image, transport, scope, accepted] of cases) {
        const policy = policyFile({ default: [reject], transports: { [transport]: { [scope]: [accept] } } });
        const what = `${image} by ${transport} ${scope}`;
        assert.equal((await skopeo.copies(image, policy)) === undefined, accepted, what);
        assert.equal((await refusal(image, ['--policy', policy])) === undefined, accepted, what);
      }
      for (const [archive, transport] of [
        [ociArchive, 'oci-archive'],
        [dockerArchive, 'docker-archive'],
      ] as const) {
        const policy = policyFile({ default: [reject], transports: { [transport]: { '': [accept] } } });
        const another = policyFile({ default: [reject], transports: { oci: { '': [accept] } } });
        const stdin = readFileSync(archive);
        const read = (by: string) => runProgram(['ls', '-', '--policy', by], { stdin });
        assert.equal((await read(policy)).exitCode, 0, archive);
        assert.match((await read(another)).stderr, /refuses - \(default\): reject/);
      }
      const signed = policyFile({ default: [byKey({ type: 'matchRepository' })] });
      assert.match((await skopeo.copies(`oci:${layout}`, signed)) ?? '', /no signature exists/);
      assert.match(
        (await refusal(`oci:${layout}`, ['--policy', signed])) ?? '',
        /layouts and archives are not checked/,
      );
    });
  });

  describe('malformed policies are refused by both', () => {
    const quoted = JSON.stringify;
    const cases: Readonly<Record<string, () => string>> = {
      nothing: () => '',
      'no JSON': () => 'default: reject',
      'a list': () => '[]',
      null: () => 'null',
      'no default': () => '{}',
      'an empty list': () => quoted({ default: [] }),
      'default null': () => quoted({ default: null }),
      'an unknown member': () => quoted({ default: [accept], defaults: [] }),
      Default: () => quoted({ Default: [accept] }),
      'default twice': () => `{"default":[${quoted(accept)}],"default":[${quoted(accept)}]}`,
      'default twice, escaped': () => `{"default":[${quoted(accept)}],"d\\u0065fault":[${quoted(accept)}]}`,
      'a scope twice': () =>
        `{"default":[${quoted(accept)}],"transports":{"docker":{"a":[${quoted(accept)}],"a":[${quoted(accept)}]}}}`,
      'a transport twice': () => `{"default":[${quoted(accept)}],"transports":{"docker":{},"docker":{}}}`,
      'type twice': () => '{"default":[{"type":"reject","type":"insecureAcceptAnything"}]}',
      'an unknown type': () => quoted({ default: [{ type: 'accept' }] }),
      'no type': () => quoted({ default: [{}] }),
      'a member that the type has not': () => quoted({ default: [{ ...accept, keyPath: '/x' }] }),
      'a list instead of a requirement': () => quoted({ default: [[]] }),
      'transports null': () => quoted({ default: [accept], transports: null }),
      'scopes that are a list': () => quoted({ default: [accept], transports: { docker: [] } }),
      'a scope without requirements': () => quoted({ default: [accept], transports: { docker: { a: [] } } }),
      'an unknown member in an unused scope': () =>
        quoted({ default: [accept], transports: { docker: { 'x.example': [{ ...reject, a: 1 }] } } }),
      'a relative path': () => quoted({ default: [accept], transports: { oci: { 'a/b': [accept] } } }),
      'the root directory': () => quoted({ default: [accept], transports: { oci: { '/': [accept] } } }),
      'a path with two slashes': () =>
        quoted({ default: [accept], transports: { oci: { '/a//b': [accept] } } }),
      'a scope of docker-archive': () =>
        quoted({ default: [accept], transports: { 'docker-archive': { '/a': [accept] } } }),
      'no key': () => quoted({ default: [{ type: 'sigstoreSigned' }] }),
      'two kinds of keys': () => quoted({ default: [byKey({}, { keyPath: key, keyData: 'AA==' })] }),
      'an empty path': () => quoted({ default: [byKey({}, { keyPath: '' })] }),
      'an empty list of keys': () => quoted({ default: [byKey({}, { keyPaths: [] })] }),
      'a key that is a number': () => quoted({ default: [byKey({}, { keyPath: 1 })] }),
      'a key that is not base64': () => quoted({ default: [byKey({}, { keyData: '%' })] }),
      'fulcio without a log': () =>
        quoted({ default: [{ ...sigstore.rule({}), rekorPublicKeyData: undefined }] }),
      'fulcio without an address': () => quoted({ default: [sigstore.rule({ subjectEmail: '' })] }),
      'fulcio with two authorities': () => quoted({ default: [sigstore.rule({ caPath: '/x' })] }),
      'fulcio with an unknown member': () => quoted({ default: [sigstore.rule({ subjectURI: 'x' })] }),
      'two kinds of log keys': () =>
        quoted({
          default: [byKey({}, { keyPath: key, rekorPublicKeyPath: '/x', rekorPublicKeyData: 'AA==' })],
        }),
      'signedBy without keyType': () => quoted({ default: [{ type: 'signedBy', keyPath: '/x' }] }),
      'signedBy with an unknown keyType': () => quoted({ default: [byGpg({ keyType: 'gpg' })] }),
      'signedBy with keyDatas': () => quoted({ default: [byGpg({ keyDatas: ['AA=='] })] }),
      'an identity of an unknown type': () => quoted({ default: [byKey({ type: 'any' })] }),
      'an identity that is null': () => quoted({ default: [{ ...byKey({}), signedIdentity: null }] }),
      'matchExact with a name': () =>
        quoted({ default: [byKey({ type: 'matchExact', dockerReference: 'a' })] }),
      'exactReference without a tag': () =>
        quoted({ default: [byKey({ type: 'exactReference', dockerReference: 'a' })] }),
      'exactReference that is no name': () =>
        quoted({ default: [byKey({ type: 'exactReference', dockerReference: 'A:1' })] }),
      'exactRepository without a name': () => quoted({ default: [byKey({ type: 'exactRepository' })] }),
      'remapIdentity with a path that is none': () =>
        quoted({ default: [byKey({ type: 'remapIdentity', prefix: 'a.example/B', signedPrefix: 'b' })] }),
      'something after it': () => `${quoted({ default: [accept] })} {}`,
    };
    for (const [name, text] of Object.entries(cases))
      test(name, async () => {
        const policy = policyFile(text());
        const image = docker.reference('plain');
        assert.notEqual(await skopeo.pull(image, policy), undefined, 'skopeo accepts it');
        assert.match((await refusal(image, ['--policy', policy])) ?? '', /cannot use the policy/);
      });
  });

  test('signatures of a digest, with and without a tag beside it', async () => {
    const { digest } = await docker.push('plain', 'latest', { layers: [layer] });
    const policy = policyFile({ default: [byKey({})] });
    const exact = policyFile({ default: [byKey({ type: 'matchExact' })] });
    const image = `${docker.host}/team/app@${digest}`;
    assert.equal(await skopeo.pull(image, policy), undefined);
    assert.equal(await refusal(image, ['--policy', policy]), undefined);
    assert.equal(await refusal(image.replace('@', ':9@'), ['--policy', policy]), undefined);
    assert.notEqual(await skopeo.pull(image, exact), undefined);
    assert.match(
      (await refusal(image, ['--policy', exact])) ?? '',
      /which the "signedIdentity" of the policy/,
    );
  });

  describe('GPG signatures before both', () => {
    /** The files of each lookaside, made from a valid signature, and true if both accept it. */
    const cases: Readonly<
      Record<string, readonly [make: (right: Buffer) => Readonly<Record<string, Uint8Array>>, boolean]>
    > = {
      right: [(right) => ({ 'signature-1': right }), true],
      'a second one is right': [
        (right) => ({ 'signature-1': right.subarray(0, -9), 'signature-2': right }),
        true,
      ],
      'a gap': [(right) => ({ 'signature-2': right }), false],
      cut: [(right) => ({ 'signature-1': right.subarray(0, -9) }), false],
      changed: [
        (right) => {
          const changed = Buffer.from(right);
          changed[right.length >> 1]! ^= 1;
          return { 'signature-1': changed };
        },
        false,
      ],
      'twice in one file': [(right) => ({ 'signature-1': Buffer.concat([right, right]) }), true],
      'behind what is not signed': [
        (right) => ({ 'signature-1': Buffer.concat([unsigned(), right]) }),
        false,
      ],
      text: [() => ({ 'signature-1': Buffer.from('no signature') }), false],
      empty: [() => ({ 'signature-1': Buffer.from('') }), false],
      'not signed': [
        () => ({
          'signature-1': execFileSync('gpg', ['--batch', '--store'], { input: '{}', stdio: 'pipe' }),
        }),
        false,
      ],
      'a key that has expired': [
        () => {
          const old = ['--faked-system-time', '20200101T000000'];
          gpgRun(...old, '--quick-gen-key', 'old@example.com', 'ed25519', 'sign', '2d');
          write('old.asc', gpgRun('--armor', '--export', 'old@example.com'));
          write(
            'payload',
            simpleSigning(signed.digest, signed.name).replace('cosign container image', 'atomic container'),
          );
          const made = scratch.join('old.sig');
          gpgRun(
            ...old,
            '--yes',
            '-u',
            'old@example.com',
            '--output',
            made,
            '--sign',
            scratch.join('payload'),
          );
          return { 'signature-1': readFileSync(made) };
        },
        false,
      ],
    };
    const signed = { digest: '', name: '' };
    before(async () => {
      signed.digest = (await docker.push('plain', 'latest', { layers: [layer] })).digest;
      signed.name = `${docker.host}/team/gpg:1.0`;
    });
    after(() =>
      execFileSync('gpgconf', ['--kill', 'all'], {
        env: { ...process.env, GNUPGHOME: scratch.join('gnupg') },
      }),
    );

    for (const [place, [name, [make, accepted]]] of Object.entries(cases).entries())
      test(name, async () => {
        const directory = `gpg@${signed.digest.replace(':', '=')}`;
        const right = readFileSync(scratch.join('lookaside/team', directory, 'signature-1'));
        for (const [entry, bytes] of Object.entries(make(right)))
          write(`lookaside-${place}/team/${directory}/${entry}`, bytes);
        const home = scratch.join(`gpg-home-${place}`);
        const judge = new Skopeo(
          scratch,
          scratch.join('unused'),
          registries({ lookaside: `file://${scratch.join(`lookaside-${place}`)}` }, home),
        );
        const keyPaths = ['one.asc', ...(name.includes('expired') ? ['old.asc'] : [])].map((each) =>
          scratch.join(each),
        );
        const policy = policyFile({ default: [byGpg({ keyPaths })] });
        const bySkopeo = await judge.pull(signed.name, policy);
        const here = await refusal(signed.name, ['--policy', policy], home);
        assert.equal(bySkopeo === undefined, accepted, `skopeo: ${bySkopeo}`);
        assert.equal(here === undefined, accepted, `dlrootfs: ${here}`);
      });
  });

  test('inspect of a rejected image, and with a malformed policy: both print', async () => {
    for (const policy of [policyFile({ default: [reject] }), policyFile('{')]) {
      const image = docker.reference('plain');
      await skopeo.run(['--policy', policy, 'inspect', '--tls-verify=false', `docker://${image}`]);
      const { exitCode, stderr } = await runHere(['inspect', image, '--no-cache', '--policy', policy]);
      assert.equal(exitCode, 0, stderr);
      assert.match(stderr, /^notice: a pull is refused: .*the policy/m);
    }
  });

  test('signatures of Sigstore from the cache', async () => {
    const policy = policyFile({ default: [byKey({})] });
    const image = `${docker.host}/team/app:1.0`;
    const home = { HOME: scratch.path };
    const cache = ['--cache-dir', scratch.join('key-cache')];
    const offline = ['ls', image, '--offline', '--policy', policy, ...cache];
    const all = policyFile({ default: [accept] });
    await runHere(['cache', 'add', image, '--policy', all, ...cache], home);
    const without = await runHere(offline, home);
    assert.match(
      without.stderr,
      /the cache has no signature of it\nhint: run dlrootfs cache add .* --policy /,
    );
    const added = await runHere(['cache', 'add', image, '--policy', policy, ...cache], home);
    assert.equal(added.exitCode, 0, added.stderr);
    const found = await runHere(offline, home);
    assert.equal(found.exitCode, 0, found.stderr);
  });

  test('without use-sigstore-attachments no signature counts, and the error says so', async () => {
    const policy = policyFile({ default: [byKey({})] });
    const image = `${docker.host}/team/app:1.0`;
    const here = (await refusal(image, ['--policy', policy], scratch.join('without'))) ?? '';
    assert.match(
      here,
      /no file in .*without\/\.config\/containers\/registries\.d has use-sigstore-attachments: true/,
    );
    const directory = scratch.join('without/.config/containers/registries.d');
    const bySkopeo = new Skopeo(scratch, policy, directory);
    assert.match((await bySkopeo.pull(image)) ?? '', /no signature exists/);
    // The remedy of the hint works.
    const [, hint = ''] = /: (\{docker: .*\})/.exec(here) ?? [];
    write('hinted/.config/containers/registries.d/hint.yaml', hint);
    assert.equal(await refusal(image, ['--policy', policy], scratch.join('hinted')), undefined);
    // This runs the program, since the single binary has another form of YAML's parser.
    const argv = ['ls', image, '--no-cache', '--policy', policy];
    const program = await runProgram(argv, { environment: { HOME: scratch.join('hinted') } });
    assert.equal(program.exitCode, 0, program.stderr);
  });

  test('GPG signatures by http, and from the cache', async () => {
    const files = createServer((request, response) => {
      try {
        response.end(readFileSync(scratch.join('lookaside', decodeURIComponent(request.url ?? ''))));
      } catch {
        response.writeHead(404).end();
      }
    });
    await using server = await LocalServer.start(files);
    const home = scratch.join('by-http');
    registries({ lookaside: `http://${server.host}/` }, home);
    const policy = policyFile({ default: [byGpg({})] });
    const image = `${docker.host}/team/gpg:1.0`;
    const cache = ['--cache-dir', scratch.join('gpg-cache'), '--policy', policy];
    const add = await runHere(['cache', 'add', image, ...cache], { HOME: home });
    assert.equal(add.exitCode, 0, add.stderr);
    server.closeConnections();
    const offline = await runHere(['ls', image, '--offline', ...cache], { HOME: home });
    assert.equal(offline.exitCode, 0, offline.stderr);
    const removed = await runHere(['cache', 'rm', image, ...cache.slice(0, 2)], { HOME: home });
    assert.equal(removed.exitCode, 0, removed.stderr);
    const left = await runHere(['cache', ...cache.slice(0, 2)], { HOME: home });
    assert.match(left.stdout, /: 0 blobs, 0 partial, 0 B\n$/);
  });

  test('GPG without its program, and with a key that cannot be read', async () => {
    const image = `${docker.host}/team/gpg:1.0`;
    const argv = ['ls', image, '--no-cache', '--policy', policyFile({ default: [byGpg({})] })];
    const { exitCode, stderr } = await runHere(argv, { HOME: scratch.path, PATH: '/nonexistent' });
    assert.match(
      stderr,
      /requirement 1, signedBy: it needs the program gpgv, which was not found\nhint: install gpgv/,
    );
    assert.equal(exitCode, 6);
    const unreadable = policyFile({ default: [byGpg({ keyPath: '/nonexistent' })] });
    assert.match(
      (await refusal(image, ['--policy', unreadable])) ?? '',
      /requirement 1, signedBy: cannot use \/nonexistent: no such file/,
    );
  });
});

const canHideEtc = (): boolean =>
  spawnSync('unshare', ['--mount', 'sh', '-c', 'mount -t tmpfs none /etc/containers']).status === 0;
const noOtherEtc =
  missing('root', 'unshare') || (canHideEtc() ? false : 'needs a mount namespace and /etc/containers');

describe('where policy.json is, and what it stops', () => {
  let registry: FakeRegistry;
  let image: string;
  const home = scratch.join('home');
  const rejecting = JSON.stringify({ default: [reject] });

  before(async () => {
    registry = await FakeRegistry.start();
    registry.push('app', 'latest', { layers: [layer] });
    image = registry.reference('app');
    write('home/.config/containers/policy.json', rejecting);
  });
  after(() => registry.close());

  test('every command that reads an image, before the first request', async () => {
    const commands = [
      [image, '-d', scratch.join('never')],
      [image, '-o', scratch.join('never.tar')],
      ['cat', image, '/etc/motd'],
      ['ls', image],
      ['verify', image, '-d', scratch.path],
      ['diff', image, image],
      ['cache', 'add', image, '--cache-dir', scratch.join('never-cache')],
    ];
    for (const argv of commands) {
      const { exitCode, stderr } = await runHere(argv, { HOME: home });
      assert.match(
        stderr,
        /^error: the policy .*home\/\.config\/containers\/policy\.json refuses .*app:latest \(default\): reject\nhint: /m,
        argv.join(' '),
      );
      assert.equal(exitCode, 6);
    }
    assert.deepEqual(registry.log(), []);
  });

  test('the system has one, or none at all', { skip: noOtherEtc }, async () => {
    const run = async (content: string, own = scratch.join('none')) => {
      const hide = `mount -t tmpfs none /etc/containers && ${content} && exec "$@"`;
      const under = ['unshare', '--mount', 'sh', '-c', hide, 'sh'];
      const environment = { HOME: own, POLICY: rejecting };
      return await runProgram(['ls', image, '--no-cache', '-v'], { environment, under });
    };
    const none = await run('true');
    assert.equal(none.exitCode, 0, none.stderr);
    assert.match(none.stderr, /^debug: the host has no policy\.json: any image is accepted$/m);
    const system = await run('printf %s "$POLICY" >/etc/containers/policy.json');
    assert.equal(system.exitCode, 6);
    assert.match(system.stderr, /^error: the policy \/etc\/containers\/policy\.json refuses /m);
    write('accepting/.config/containers/policy.json', JSON.stringify({ default: [accept] }));
    const user = await run('printf %s "$POLICY" >/etc/containers/policy.json', scratch.join('accepting'));
    assert.equal(user.exitCode, 0, user.stderr);
  });

  test('a policy that the user may not read refuses', { skip: noOtherUser }, async () => {
    const own = scratch.join('unreadable');
    const place = write('unreadable/.config/containers/policy.json', JSON.stringify({ default: [accept] }));
    chmodSync(scratch.path, 0o755);
    chmodSync(place, 0o000);
    const { exitCode, stderr } = await runProgram(['ls', image, '--no-cache'], {
      cwd: '/tmp',
      environment: { HOME: own },
      uid: 65_534,
    });
    assert.match(stderr, /^error: cannot read the policy .*: permission denied \(EACCES\)$/m);
    assert.equal(exitCode, 6);
  });

  test('two signatures, of which one is right', async () => {
    const key = signingKey();
    const { digest } = registry.push('twice', 'latest', { layers: [layer] });
    const payload = simpleSigning(digest, registry.reference('twice'));
    const own = scratch.join('twice-home');
    write(
      'twice-home/.config/containers/registries.d/a.yaml',
      'default-docker: {use-sigstore-attachments: true}',
    );
    const flags = [
      '--policy',
      policyFile({ default: [{ type: 'sigstoreSigned', keyPath: write('twice.pub', key.pem) }] }),
    ];
    const wrong = [
      simpleSignature(signingKey(), payload),
      simpleSignature(key, simpleSigning(digest, 'example.com/elsewhere:1')),
    ];
    tagSignatures(registry, 'twice', digest, ...wrong);
    assert.match(
      (await refusal(registry.reference('twice'), flags, own)) ?? '',
      /requirement 1, sigstoreSigned: signature 1 .*: it was not made with the key .*; signature 2 .*: it is for the name example\.com\/elsewhere:1, which the "signedIdentity"/,
    );
    tagSignatures(registry, 'twice', digest, ...wrong, simpleSignature(key, payload));
    assert.equal(await refusal(registry.reference('twice'), flags, own), undefined);
  });

  test('inspect prints, with a notice', async () => {
    const { exitCode, stderr, stdout } = await runHere(['inspect', image, '--no-cache'], { HOME: home });
    assert.equal(exitCode, 0);
    assert.match(stdout, /Digest/);
    assert.match(stderr, /a pull is refused: the policy/);
  });

  test('--insecure-policy, and --policy with another file', async () => {
    assert.equal(await refusal(image, ['--insecure-policy'], home), undefined);
    assert.equal(await refusal(image, ['--policy', policyFile({ default: [accept] })], home), undefined);
    const both = await runHere(['ls', image, '--insecure-policy', '--policy', 'x'], { HOME: home });
    assert.equal(both.exitCode, 2);
  });

  test('pki is refused, and named', async () => {
    write('pki/.config/containers/registries.d/a.yaml', 'default-docker: {use-sigstore-attachments: true}');
    const authority = { caRootsData: Buffer.from('x').toString('base64'), subjectEmail: 'a@example.com' };
    const policy = policyFile({ default: [{ type: 'sigstoreSigned', pki: authority }] });
    const message = (await refusal(image, ['--policy', policy], scratch.join('pki'))) ?? '';
    assert.match(
      message,
      /requirement 1, sigstoreSigned: "pki" is not supported\nhint: use podman or skopeo/,
    );
  });

  test('the key of --verify-key is required on top of it', async () => {
    const key = signingKey();
    const { digest } = registry.push('signed', 'latest', { layers: [layer] });
    tagSignatures(registry, 'signed', digest, simpleSignature(key, simpleSigning(digest)));
    const flags = ['--verify-key', write('key.pub', key.pem)];
    const reference = registry.reference('signed');
    assert.match((await refusal(reference, flags, home)) ?? '', /the policy/);
    const accepting = policyFile({ default: [accept] });
    assert.equal(await refusal(reference, [...flags, '--policy', accepting]), undefined);
    assert.match((await refusal(image, [...flags, '--policy', accepting])) ?? '', /is not signed by/);
  });

  test('a signature of the index that leads to the manifest counts', async () => {
    const key = signingKey();
    const index = registry.pushIndex('indexed', 'latest', [{ layers: [layer] }]);
    const payload = simpleSigning(index.digest, registry.reference('indexed'));
    tagSignatures(registry, 'indexed', index.digest, simpleSignature(key, payload));
    const own = scratch.join('indexed-home');
    write(
      'indexed-home/.config/containers/registries.d/a.yaml',
      'default-docker: {use-sigstore-attachments: yes}',
    );
    const keyPath = write('index.pub', key.pem);
    const policy = policyFile({ default: [{ type: 'sigstoreSigned', keyPath }] });
    const reference = registry.reference('indexed');
    assert.equal(await refusal(reference, ['--policy', policy, '--platform', 'linux/amd64'], own), undefined);
  });

  test('files of registries.d that cannot be used', async () => {
    const policy = policyFile({
      default: [{ type: 'sigstoreSigned', keyPath: write('any.pub', signingKey().pem) }],
    });
    const section = 'docker: {a.example: {lookaside: "file:///x"}}';
    const manySections = Array.from({ length: 60_000 }, (_, n) => `  h${n}.example: {}\n`).join('');
    const cases: readonly (readonly [words: RegExp, ...files: readonly string[]])[] = [
      [/another file has the section docker: a\.example too/, section, section],
      [/default-docker too/, 'default-docker: {}', 'default-docker: {}'],
      [/neither true nor false/, 'default-docker: {use-sigstore-attachments: "true"}'],
      [/no address/, 'docker: {a.example: {lookaside: 1}}'],
      [/no mapping/, '- a'],
      [/no mapping/, 'docker: []'],
      [/unique/, 'docker: {a: {}, a: {}}'],
      [/unique/, 'docker: {a: {}, "a": {}}'],
      [/cannot use .*0\.yaml: [^\\]*\n/, 'docker: {'],
      // These sections are read in linear time.
      [/no signature/, `default-docker: {use-sigstore-attachments: true}\ndocker:\n${manySections}`],
    ];
    for (const [place, [words, ...files]] of cases.entries()) {
      for (const [name, content] of files.entries())
        write(`broken-${place}/.config/containers/registries.d/${name}.yaml`, content);
      assert.match(
        (await refusal(image, ['--policy', policy], scratch.join(`broken-${place}`))) ?? '',
        words,
      );
    }
  });

  test('the name that was typed counts, not that of a mirror', async () => {
    const mirror = ['--mirror', `http://${registry.host}`];
    for (const [scope, accepted] of [
      ['typed.example', true],
      [registry.host, false],
    ] as const) {
      const policy = policyFile({ default: [reject], transports: { docker: { [scope]: [accept] } } });
      const message = await refusal('typed.example/app', ['--policy', policy, ...mirror]);
      assert.equal(message === undefined, accepted, message);
    }
  });

  test('names of Docker Hub are complete', () => {
    assert.deepEqual(scopesOf(Reference.parse('alpine')).scopes, [
      'docker.io/library/alpine:latest',
      'docker.io/library/alpine',
      'docker.io/library',
      'docker.io',
      '*.io',
    ]);
  });

  test('inspect goes on where a lookaside does not answer', async () => {
    write(
      'mute/.config/containers/registries.d/a.yaml',
      'default-docker: {lookaside: "http://127.0.0.1:1/"}',
    );
    const rule = { type: 'signedBy', keyType: 'GPGKeys', keyData: 'mQ==' };
    const flags = ['--no-cache', '--retry', '0', '--policy', policyFile({ default: [rule] })];
    const environment = { HOME: scratch.join('mute') };
    const inspected = await runHere(['inspect', image, ...flags], environment);
    assert.match(inspected.stderr, /a pull is refused: .*127\.0\.0\.1:1/);
    assert.equal(inspected.exitCode, 0);
    assert.equal((await runHere(['ls', image, ...flags], environment)).exitCode, 5);
  });

  test('files that are no policies', async () => {
    const pipe = scratch.join('pipe');
    execFileSync('mkfifo', [pipe]);
    symlinkSync('nowhere', scratch.join('dangling'));
    const deep = `{"default":${'['.repeat(100_000)}${']'.repeat(100_000)}}`;
    const cases = {
      '/dev/zero': /longer than \d+ bytes/,
      '/': /directory/,
      [scratch.join('dangling')]: /no such file/,
      [scratch.join('missing')]: /no such file/,
      [write('large.json', Buffer.alloc(100 * 1024 * 1024, ' '))]: /longer than \d+ bytes/,
      [write('deep.json', deep)]: /nested more than/,
      [write('latin.json', Buffer.from('{"default":[{"type":"rej\xe9ct"}]}', 'latin1'))]: /unknown type/,
    };
    for (const [place, words] of Object.entries(cases)) {
      const message = (await refusal(image, ['--policy', place])) ?? '';
      assert.match(message, words, place);
      assert.match(message, /cannot (?:read|use) the policy/);
    }
    for (const place of [pipe, scratch.join('dangling')]) {
      const own = scratch.join(`home-${path.basename(place)}`);
      mkdirSync(path.join(own, '.config/containers'), { recursive: true });
      symlinkSync(place, path.join(own, '.config/containers/policy.json'));
      assert.match((await refusal(image, [], own)) ?? '', /cannot read the policy/);
    }
  });

  test('10,000 scopes', async () => {
    const scopes = Object.fromEntries(
      Array.from({ length: 10_000 }, (_, n) => [`host${n}.example/team`, [reject]]),
    );
    const policy = policyFile({
      default: [reject],
      transports: { docker: { ...scopes, [registry.host]: [accept] } },
    });
    assert.equal(await refusal(image, ['--policy', policy]), undefined);
  });

  const isRoot = process.getuid!() === 0;
  const skip = isRoot && noOtherUser;
  test('a user whose home cannot be looked into gets the policy of the system', { skip }, async () => {
    const closed = scratch.join('closed');
    mkdirSync(closed, { mode: 0o000 });
    try {
      const { exitCode, stderr } = await runProgram(['ls', image, '--no-cache'], {
        cwd: '/tmp',
        environment: { HOME: closed },
        ...(isRoot && { uid: 65_534 }),
      });
      assert.equal(exitCode, 0, stderr);
    } finally {
      chmodSync(closed, 0o700);
    }
  });
});
