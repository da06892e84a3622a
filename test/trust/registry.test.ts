/**
 * Signatures in registries that have endless pages, are incomplete or unreachable; in caches, layouts and
 * mirrors; and keys that are not files.
 */
import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { PassThrough } from 'node:stream';
import { after, before, describe, test } from 'node:test';
import * as library from '../../src/index.ts';
import { file, tar } from '../support/archive.ts';
import { FakeRegistry, type FakeRegistryOptions } from '../support/fake-registry.ts';
import { mediaTypes, sha256 } from '../support/fake-image.ts';
import { runHere } from '../support/in-process.ts';
import { Scratch } from '../support/program.ts';
import {
  attachBundle,
  attachSignatures,
  BUNDLE_TYPE,
  keyBundle,
  SIGNATURE_ANNOTATION,
  signingKey,
  simpleSignature,
  simpleSigning,
  statement,
  tagSignatures,
} from '../support/signatures.ts';

const layer = { tar: tar(file('etc/motd', 'hello')) };
const ours = signingKey();
const scratch = new Scratch();

/** A registry with an image `app`, and its digest. */
async function start(options: FakeRegistryOptions = {}) {
  const registry = await FakeRegistry.start(options);
  const { digest, layers } = registry.push('app', 'latest', { layers: [layer] });
  return { registry, digest, layer: layers[0]!.digest };
}

const index = (manifests: readonly object[], link?: string) => ({
  status: 200,
  headers: { 'content-type': mediaTypes.oci.index, ...(link !== undefined && { link }) },
  body: Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: mediaTypes.oci.index, manifests })),
});

const descriptor = (n: number) => ({
  mediaType: mediaTypes.oci.manifest,
  digest: sha256(String(n)),
  size: 1,
  artifactType: BUNDLE_TYPE,
});

async function filesBelow(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => `${entry.parentPath}/${entry.name}`)
    .toSorted();
}

const text = (name: string, content: string): string => {
  writeFileSync(scratch.join(name), content);
  return scratch.join(name);
};

describe('signatures in registries', () => {
  const key = scratch.join('cosign.pub');
  const byKey = ['--verify-key', key];

  before(() => writeFileSync(key, ours.pem));
  after(() => scratch[Symbol.dispose]());

  const noCache = ['--no-cache', '--retry', '0'];
  const inspect = (registry: FakeRegistry, ...flags: readonly string[]) =>
    runHere(['inspect', registry.reference('app'), ...noCache, ...byKey, ...flags]);

  test('without flags nothing is requested beside the image', async () => {
    const { registry } = await start();
    await using _ = registry;
    const result = await runHere([registry.reference('app'), '-d', scratch.join('plain'), ...noCache]);
    assert.equal(result.exitCode, 0);
    assert.deepEqual(registry.log(/referrers|\.sig/), []);
  });

  test('the signature is requested once for each manifest, for the digest, before any layer', async () => {
    const { registry, digest, layer: blob } = await start();
    await using _ = registry;
    const referrer = attachBundle(registry, 'app', digest, keyBundle(ours, statement(digest)));
    const result = await runHere([
      registry.reference('app'),
      '-d',
      scratch.join('once'),
      ...noCache,
      ...byKey,
    ]);
    assert.equal(result.exitCode, 0, result.stderr);
    const log = registry.log();
    assert.deepEqual(
      log.filter((line) => line.includes('manifests/latest')),
      ['GET /v2/app/manifests/latest'],
    );
    const order = [`referrers/${digest}`, `manifests/${referrer}`, `blobs/${blob}`];
    const places = order.map((end) => log.findIndex((line) => line.endsWith(end)));
    assert.deepEqual(
      places,
      places.toSorted((one, two) => one - two),
    );
    assert.ok(!places.includes(-1));
    assert.equal(new Set(log).size, log.length);
  });

  test('pages are followed to the signature', async () => {
    const { registry, digest } = await start({ pageSize: 2 });
    await using _ = registry;
    for (let n = 0; n < 5; n += 1)
      attachBundle(registry, 'app', digest, keyBundle(signingKey(), statement(digest)));
    attachBundle(registry, 'app', digest, keyBundle(ours, statement(digest)));
    assert.equal((await inspect(registry)).exitCode, 0);
    assert.equal(registry.log(/referrers/).length, 3);
  });

  test('pages without end', async () => {
    let page = 0;
    const { registry } = await start({
      handler: ({ path }) =>
        path.includes('/referrers/') ? index([], `<?page=${(page += 1)}>; rel="next"`) : undefined,
    });
    await using _ = registry;
    const { exitCode, stderr } = await inspect(registry);
    assert.match(stderr, /there are more signatures; the first 0 were looked at/);
    assert.equal(exitCode, 6);
    assert.equal(page, 100);
  });

  test('pages without end, each with more referrers', async () => {
    let page = 0;
    const { registry } = await start({
      handler: ({ path }) => {
        if (!path.includes('/referrers/')) return undefined;
        page += 1;
        const some = Array.from({ length: 100 }, (_, n) => descriptor(page * 100 + n));
        return index(some, `<?page=${page}>; rel="next"`);
      },
    });
    await using _ = registry;
    const { exitCode, stderr } = await inspect(registry);
    assert.match(stderr, /there are more signatures; the first 200 were looked at/);
    assert.equal(exitCode, 6);
    assert.equal(page, 11);
  });

  test('a page that leads to itself, and one that leads elsewhere', async () => {
    for (const link of ['<?n=1>', '<http://example.com/v2/app/referrers/x>', '</v2/app/tags/list>']) {
      const { registry } = await start({
        handler: ({ path }) => (path.includes('/referrers/') ? index([], `${link}; rel="next"`) : undefined),
      });
      await using _ = registry;
      const { exitCode, stderr } = await inspect(registry);
      assert.match(stderr, /is not signed by/);
      assert.equal(exitCode, 6);
      assert.ok(registry.log(/referrers/).length <= 2);
    }
  });

  test('10,000 referrers', async () => {
    const all = Array.from({ length: 10_000 }, (_, n) => descriptor(n));
    const { registry } = await start({
      handler: ({ path }) => (path.includes('/referrers/') ? index(all) : undefined),
    });
    await using _ = registry;
    const { exitCode, stderr } = await inspect(registry);
    assert.match(stderr, /its manifest does not exist; .*and \d+ more/s);
    assert.ok(stderr.length < 4000);
    assert.equal(exitCode, 6);
    assert.ok(registry.log(/manifests\/sha256:/).length <= 210);
  });

  test('10,000 attestations of other kinds before the signature', async () => {
    const annotations = { 'dev.sigstore.bundle.predicateType': 'https://slsa.dev/provenance/v1' };
    const others = Array.from({ length: 900 }, (_, n) => ({ ...descriptor(n), annotations }));
    let own: object | undefined;
    const { registry, digest } = await start({
      handler: ({ path }) => (path.includes('/referrers/') && own ? index([...others, own]) : undefined),
    });
    await using _ = registry;
    const signature = attachBundle(registry, 'app', digest, keyBundle(ours, statement(digest)));
    own = { ...descriptor(0), digest: signature };
    assert.equal((await inspect(registry)).exitCode, 0);
    assert.equal(registry.log(/manifests\/sha256:/).length, 1);
  });

  test('an annotation of 4 MiB, and a payload of 2 MiB', async () => {
    const { registry, digest } = await start();
    await using _ = registry;
    const annotations = { [SIGNATURE_ANNOTATION]: 'A'.repeat(4 * 2 ** 20) };
    tagSignatures(registry, 'app', digest, { payload: simpleSigning(digest), annotations });
    const large = await inspect(registry);
    assert.match(large.stderr, /sent more than the limit/);
    assert.equal(large.exitCode, 6);
    tagSignatures(registry, 'app', digest, simpleSignature(ours, 'x'.repeat(2 * 2 ** 20)));
    const long = await inspect(registry);
    assert.match(long.stderr, /has 2097152 bytes, 1048576 are allowed/);
    assert.equal(long.exitCode, 6);
  });

  test('referrers with many signatures, and with large ones: a limit on the requests and the bytes', async () => {
    const many = { payloads: 199, size: 2, requested: 1000, says: /more than 1000 signatures/ };
    const large = {
      payloads: 20,
      size: 2 ** 20,
      requested: 64,
      says: /more than 67108864 bytes of signatures/,
    };
    for (const { payloads, size, requested, says } of [many, large]) {
      const { registry, digest } = await start();
      await using _ = registry;
      const signatures = Array.from({ length: payloads }, () => ({
        payload: ' '.repeat(size),
        annotations: {},
      }));
      for (let n = 0; n < 6; n += 1)
        attachSignatures(registry, 'app', digest, ...signatures, {
          payload: String(n).padEnd(size),
          annotations: {},
        });
      const { exitCode, stderr } = await inspect(registry);
      assert.match(stderr, says);
      assert.equal(exitCode, 6);
      assert.ok(registry.log(/blobs/).length <= requested + 1);
    }
  });

  test('a list of referrers with an annotation of 4 MiB does not hide the tag', async () => {
    const annotations = { [SIGNATURE_ANNOTATION]: 'A'.repeat(4 * 2 ** 20) };
    const { registry, digest } = await start({
      handler: ({ path }) =>
        path.includes('/referrers/') ? index([{ ...descriptor(0), annotations }]) : undefined,
    });
    await using _ = registry;
    const refused = await inspect(registry);
    assert.match(refused.stderr, /sent more than the limit of 4194304 bytes$/m);
    assert.equal(refused.exitCode, 6);
    tagSignatures(registry, 'app', digest, simpleSignature(ours, simpleSigning(digest)));
    assert.equal((await inspect(registry)).exitCode, 0);
  });

  test('10,000 signatures under the tag', async () => {
    const { registry, digest } = await start();
    await using _ = registry;
    const wrong = simpleSignature(signingKey(), simpleSigning(digest));
    const right = simpleSignature(ours, simpleSigning(digest));
    const many = Array.from({ length: 9_999 }, () => wrong);
    tagSignatures(registry, 'app', digest, ...many, right);
    const { exitCode, stderr } = await inspect(registry);
    assert.match(stderr, /there are more signatures; the first 1000 were looked at; .*and 991 more$/m);
    assert.equal(exitCode, 6);
    assert.ok(registry.requests.length < 1010);
    tagSignatures(registry, 'app', digest, right, ...many);
    assert.equal((await inspect(registry)).exitCode, 0);
  });

  test('a listed bundle that is not there, or is cut', async () => {
    const { registry, digest } = await start();
    await using _ = registry;
    const bundle = keyBundle(ours, statement(digest));
    const referrer = attachBundle(registry, 'app', digest, bundle);
    for (const [fault, reason] of [
      [{ status: 404 }, /the signature sha256:\w+ of .* does not exist/],
      [{ body: bundle.slice(0, 100) }, /has digest sha256:\w+ but must have/],
    ] as const) {
      registry.fault({ path: new RegExp(`blobs/${sha256(bundle)}`), ...fault });
      const { exitCode, stderr } = await inspect(registry);
      assert.ok(stderr.includes(`: referrer ${referrer}: `), stderr);
      assert.match(stderr, reason);
      assert.equal(exitCode, 6);
    }
    assert.equal((await inspect(registry)).exitCode, 0);
  });

  test('a refused image replaces and changes no directory', async () => {
    const { registry, digest } = await start();
    await using _ = registry;
    const place = scratch.join('kept');
    const flags = ['-d', place, ...noCache, ...byKey];
    attachBundle(registry, 'app', digest, keyBundle(ours, statement(digest)));
    assert.equal((await runHere([registry.reference('app'), ...flags])).exitCode, 0);
    const untouched = await filesBelow(place);
    const { layers } = registry.push('app', 'latest', { layers: [{ tar: tar(file('etc/passwd', 'x')) }] });
    for (const how of ['--replace', '--replace=always', '--merge']) {
      const { exitCode, stderr } = await runHere([registry.reference('app'), how, ...flags]);
      assert.match(stderr, /is not signed by/);
      assert.equal(exitCode, 6);
    }
    assert.deepEqual(await filesBelow(place), untouched);
    assert.deepEqual(registry.log(new RegExp(`blobs/${layers[0]!.digest}`)), []);
  });

  test('the library verifies by signers and policy', async () => {
    const { registry, digest } = await start();
    await using _ = registry;
    const image = registry.reference('app');
    const signers = { verifyKeys: [key] };
    const options = { environment: {}, cache: false, policy: false, signers } as const;
    const refused = { name: 'UntrustedError', exitCode: 6 };
    const commands = [
      () => library.pull(image, { ...options, destination: scratch.join('by-library') }),
      () => library.inspect(image, options),
      () => library.verify(image, { ...options, destination: scratch.path }),
      () => library.diff(image, image, options),
      () => library.cat(image, '/etc/motd', new PassThrough(), options),
      () => library.list(image, '/', options),
      () => library.exportArchive(image, scratch.join('by-library.tar'), options),
    ];
    for (const command of commands) await assert.rejects(command, refused);
    assert.ok(!existsSync(scratch.join('by-library')) && !existsSync(scratch.join('by-library.tar')));
    const rejecting = text('reject.json', '{"default":[{"type":"reject"}]}');
    await assert.rejects(library.diff(image, image, { ...options, policy: rejecting }), refused);
    attachBundle(registry, 'app', digest, keyBundle(ours, statement(digest)));
    assert.equal((await library.inspect(image, options)).signers?.[0]?.key, key);
    await library.pull(image, { ...options, destination: scratch.join('by-library') });
    assert.ok(existsSync(scratch.join('by-library/etc/motd')));
  });

  test('1,000 signatures under the tag, of which the last is right, and one more', async () => {
    const { registry, digest } = await start();
    await using _ = registry;
    const wrong = (length: number) =>
      Array.from({ length }, () => ({
        payload: simpleSigning(digest),
        annotations: { [SIGNATURE_ANNOTATION]: 'AAAA' },
      }));
    const right = simpleSignature(ours, simpleSigning(digest));
    tagSignatures(registry, 'app', digest, ...wrong(999), right);
    assert.equal((await inspect(registry)).exitCode, 0);
    tagSignatures(registry, 'app', digest, ...wrong(1000), right);
    const { exitCode, stderr } = await inspect(registry);
    assert.match(stderr, /there are more signatures; the first 1000 were looked at/);
    assert.equal(exitCode, 6);
  });

  test('a signature that is listed and not there, or has another digest', async () => {
    for (const change of [undefined, Buffer.from('changed')]) {
      const { registry, digest } = await start({
        handler: ({ path }) =>
          path.endsWith(`/blobs/${payloadDigest}`)
            ? { status: change ? 200 : 404, headers: {}, body: change ?? Buffer.alloc(0) }
            : undefined,
      });
      await using _ = registry;
      const payload = simpleSigning(digest);
      const payloadDigest = sha256(payload);
      tagSignatures(registry, 'app', digest, simpleSignature(ours, payload));
      const { exitCode, stderr } = await inspect(registry);
      assert.match(stderr, change ? /has digest/ : /does not exist/);
      assert.equal(exitCode, 6);
    }
  });

  test('a manifest of signatures that has another digest than the list says', async () => {
    const { registry, digest } = await start();
    await using _ = registry;
    const attached = attachBundle(registry, 'app', digest, keyBundle(ours, statement(digest)));
    assert.equal((await inspect(registry)).exitCode, 0);
    const address = `${registry.url}/v2/app/manifests/${attached}`;
    const answer = await fetch(address, { headers: { accept: mediaTypes.oci.manifest } });
    const manifest = await answer.text();
    registry.fault({ path: new RegExp(`manifests/${attached}`), times: 9, body: `${manifest} ` });
    const { exitCode, stderr } = await inspect(registry);
    assert.match(stderr, /has digest/);
    assert.equal(exitCode, 6);
  });

  test('a signature without its image', async () => {
    const { registry } = await start();
    await using _ = registry;
    const digest = sha256('gone');
    tagSignatures(registry, 'app', digest, simpleSignature(ours, simpleSigning(digest)));
    const result = await runHere(['inspect', registry.reference('app', digest), ...noCache, ...byKey]);
    assert.equal(result.exitCode, 3, result.stderr);
  });

  test('an image whose signature is right and whose layer is missing', async () => {
    const {
      registry,
      digest,
      layer: blob,
    } = await start({
      handler: ({ path }) =>
        path.endsWith(`/blobs/${blob}`) ? { status: 404, headers: {}, body: Buffer.alloc(0) } : undefined,
    });
    await using _ = registry;
    tagSignatures(registry, 'app', digest, simpleSignature(ours, simpleSigning(digest)));
    const place = scratch.join('no-layer');
    const result = await runHere([registry.reference('app'), '-d', place, ...noCache, ...byKey]);
    assert.match(result.stderr, new RegExp(`the layer ${blob} of .* does not exist`));
    assert.equal(result.exitCode, 3);
    assert.ok(!existsSync(place));
  });

  test('an answer that is no list of referrers leads to the tag', async () => {
    const { registry, digest } = await start({
      handler: ({ path }) =>
        path.includes('/referrers/')
          ? { status: 200, headers: { 'content-type': 'text/html' }, body: Buffer.from('<html>') }
          : undefined,
    });
    await using _ = registry;
    tagSignatures(registry, 'app', digest, simpleSignature(ours, simpleSigning(digest)));
    assert.equal((await inspect(registry)).exitCode, 0);
    assert.ok(registry.log().includes(`GET /v2/app/manifests/${digest.replace(':', '-')}`));
  });

  test('without an answer the error is about the registry', async () => {
    for (const [status, code] of [
      [503, 5],
      [403, 4],
    ] as const) {
      const { registry, digest } = await start({
        handler: ({ path }) =>
          path.includes('/referrers/') ? { status, headers: {}, body: Buffer.alloc(0) } : undefined,
      });
      await using _ = registry;
      const refused = await inspect(registry);
      assert.equal(refused.exitCode, code, refused.stderr);
      tagSignatures(registry, 'app', digest, simpleSignature(ours, simpleSigning(digest)));
      assert.equal((await inspect(registry)).exitCode, 0);
    }
  });

  test('a mirror without signatures does not hide those of the registry', async () => {
    const { registry, digest } = await start();
    const mirror = await start({ referrers: false });
    await using _ = registry;
    await using __ = mirror.registry;
    attachBundle(registry, 'app', digest, keyBundle(ours, statement(digest)));
    const result = await inspect(registry, '--mirror', `http://${mirror.registry.host}`);
    assert.equal(result.exitCode, 0, result.stderr);
    assert.deepEqual(mirror.registry.log(/manifests\/latest/), ['GET /v2/app/manifests/latest']);
  });

  test('offline the cache verifies, once the signature was fetched', async () => {
    const { registry, digest } = await start();
    const image = registry.reference('app');
    const cached = ['--cache-dir', scratch.join('cache')];
    {
      await using _ = registry;
      attachBundle(registry, 'app', digest, keyBundle(ours, statement(digest)));
      assert.equal((await runHere(['cache', 'add', image, ...cached])).exitCode, 0);
      const early = await runHere(['inspect', image, ...cached, '--offline', ...byKey]);
      assert.match(early.stderr, /the cache has no signature of it/);
      assert.match(early.stderr, /^hint: .*dlrootfs cache add .*--verify-key/m);
      assert.equal(early.exitCode, 6);
      assert.equal((await runHere(['cache', 'add', image, ...cached, ...byKey])).exitCode, 0);
    }
    const place = scratch.join('offline');
    const result = await runHere([image, '-d', place, ...cached, '--offline', ...byKey]);
    assert.equal(result.exitCode, 0, result.stderr);
    writeFileSync(scratch.join('other.pub'), signingKey().pem);
    const other = ['--verify-key', scratch.join('other.pub')];
    const refused = await runHere([image, '-d', scratch.join('no'), ...cached, '--offline', ...other]);
    assert.equal(refused.exitCode, 6);
    assert.ok(!existsSync(scratch.join('no')));
  });

  for (const [where, options] of Object.entries({ 'in the API': {}, 'under a tag': { referrers: false } }))
    test(`signatures ${where} are no images of the cache, and go with the last tag of theirs`, async () => {
      const { registry, digest } = await start(options);
      await using _ = registry;
      using place = new Scratch();
      registry.push('app', 'same', { layers: [layer] });
      registry.push('app', 'unsigned', { layers: [{ tar: tar(file('etc/motd', 'another')) }] });
      attachBundle(registry, 'app', digest, keyBundle(ours, statement(digest)));
      tagSignatures(registry, 'app', digest, simpleSignature(ours, simpleSigning(digest)));
      const cached = ['--cache-dir', place.path];
      const run = async (...argv: string[]) => {
        const result = await runHere([...argv, ...cached]);
        assert.equal(result.exitCode, 0, result.stderr);
        return result.stdout;
      };
      const [image, same, unsigned] = ['latest', 'same', 'unsigned'].map((tag) =>
        registry.reference('app', tag),
      ) as [string, string, string];
      await run('cache', 'add', unsigned);
      const unsignedAlone = await filesBelow(place.path);
      for (const tag of [image, same]) await run('cache', 'add', tag, ...byKey);
      const listed = async () =>
        (JSON.parse(await run('cache', 'list', '--json')) as { reference: string }[]).map(
          ({ reference }) => reference,
        );
      assert.deepEqual((await listed()).toSorted(), [image, same, unsigned].toSorted());
      await run('cache', 'rm', image);
      await run('ls', same, '--offline', ...byKey);
      await run('cache', 'rm', same);
      assert.deepEqual(await listed(), [unsigned]);
      assert.deepEqual(await filesBelow(place.path), unsignedAlone);
    });

  test('every command that reads layers checks signatures, and -o leaves no file', async () => {
    const { registry, layer: blob } = await start();
    await using _ = registry;
    const image = registry.reference('app');
    const commands = [
      ['verify', image, '-d', scratch.path],
      ['diff', image, image],
      ['cat', image, '/etc/motd'],
      [image, '-o', scratch.join('x.tar')],
      [image, '-d', scratch.join('x'), '-g'],
    ];
    for (const command of commands) {
      const result = await runHere([...command, ...noCache, ...byKey]);
      assert.match(result.stderr, /is not signed by/);
      assert.equal(result.exitCode, 6);
    }
    const added = await runHere(['cache', 'add', image, '--cache-dir', scratch.join('c2'), ...byKey]);
    assert.equal(added.exitCode, 6);
    assert.ok(!existsSync(scratch.join('x.tar')) && !existsSync(scratch.join('x')));
    assert.deepEqual(registry.log(new RegExp(`blobs/${blob}`)), []);
  });

  describe('keys and flags that cannot be used: exit code 2', () => {
    const identity = ['--certificate-identity', 'me'];
    const issuer = ['--certificate-oidc-issuer', 'https://example.com'];
    const certChain = { certificates: [{ rawBytes: 'AAAA' }] };
    /** Returns the flags with a trusted root of these members. */
    const rooted = (members: object): readonly string[] => {
      const mediaType = 'application/vnd.dev.sigstore.trustedroot+json;version=0.1';
      const root = text('members.json', JSON.stringify({ mediaType, ...members }));
      return [...identity, ...issuer, '--trusted-root', root];
    };
    const cases: Readonly<Record<string, readonly [() => readonly string[], RegExp]>> = {
      'a directory': [() => ['--verify-key', scratch.path], /cannot read the key .*: .*directory/],
      '/dev/zero': [() => ['--verify-key', '/dev/zero'], /longer than 4194304 bytes/],
      'a file that does not exist': [() => ['--verify-key', scratch.join('none')], /no such file/i],
      'a file that is no key': [() => ['--verify-key', text('empty', '')], /it has no key in PEM/],
      'a private key': [
        () => [
          '--verify-key',
          text('cosign.key', String(ours.privateKey.export({ type: 'pkcs8', format: 'pem' }))),
        ],
        /it is no public key \(PRIVATE KEY\)/,
      ],
      'a key that is cut': [
        () => ['--verify-key', text('cut', ours.pem.replace(/A.{20}/s, ''))],
        /malformed|cannot verify signatures/,
      ],
      'half an identity': [() => identity, /--certificate-identity needs --certificate-oidc-issuer/],
      'the other half': [() => issuer, /--certificate-oidc-issuer needs --certificate-identity/],
      'a key and an identity': [
        () => ['--verify-key', key, ...identity, ...issuer],
        /--verify-key contradicts --certificate-identity/,
      ],
      'an identity twice': [
        () => [...identity, '--certificate-identity-regexp', 'x', ...issuer],
        /contradicts --certificate-identity-regexp/,
      ],
      'a root without identity': [() => ['--trusted-root', key], /--trusted-root has no effect/],
      'a root that is no root': [
        () => [...identity, ...issuer, '--trusted-root', text('root.json', '{}')],
        /it is of type none, no trusted root/,
      ],
      'a root that is a directory': [
        () => [...identity, ...issuer, '--trusted-root', scratch.path],
        /cannot read the trusted root .*: .*directory/,
      ],
      'a root without end': [
        () => [...identity, ...issuer, '--trusted-root', '/dev/zero'],
        /longer than 4194304 bytes/,
      ],
      'a root that is cut': [() => rooted({}), /it has no certificate authority/],
      'a root with a number of logs': [() => rooted({ tlogs: 5 }), /"tlogs" is no list of objects/],
      'a root whose authority has no certificates': [
        () => rooted({ certificateAuthorities: [{ uri: 'https://example.com' }] }),
        /an authority has no certificates/,
      ],
      'a root with a time that is none': [
        () => rooted({ certificateAuthorities: [{ certChain, validFor: { start: 'soon' } }] }),
        /a time in it is malformed/,
      ],
      'a regular expression of Go alone': [
        () => ['--certificate-identity-regexp', String.raw`\Ax\z`, ...issuer],
        /\\A is not supported/,
      ],
      'a regular expression that is none': [
        () => ['--certificate-identity-regexp', '(', ...issuer],
        /cannot be used/,
      ],
    };
    for (const [name, [flags, reason]] of Object.entries(cases)) {
      test(name, async () => {
        const { registry } = await start();
        await using _ = registry;
        const result = await runHere(['inspect', registry.reference('app'), ...noCache, ...flags()]);
        assert.match(result.stderr, reason);
        assert.equal(result.exitCode, 2);
        assert.deepEqual(registry.log(), []);
      });
    }
  });
});
