/**
 * cosign, skopeo and dlrootfs check the same signatures: dlrootfs accepts those that the others sign, and all
 * refuse those that one refuses. Images are for one platform, since skopeo does not check signatures of an
 * index.
 */
import assert from 'node:assert/strict';
import { sign } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { file, tar } from '../support/archive.ts';
import { DockerRegistry } from '../support/docker-registry.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { mediaTypes, sha256 } from '../support/fake-image.ts';
import { runHere } from '../support/in-process.ts';
import { Cosign, Skopeo } from '../support/peers.ts';
import { Scratch } from '../support/program.ts';
import {
  attachBundle,
  type FakeSignature,
  keyBundle,
  SIGNATURE_ANNOTATION,
  signedBy,
  signingKey,
  simpleSignature,
  simpleSigning,
  statement,
  tagSignatures,
} from '../support/signatures.ts';
import { type BundleOptions, FakeSigstore } from '../support/sigstore.ts';

const layer = { tar: tar(file('etc/motd', 'hello')) };

/** Flags that accept signatures of this key under any name of the repository. */
function policyFor(keyPath: string): string {
  const signedIdentity = { type: 'matchRepository' };
  const requirement = { type: 'sigstoreSigned', keyPath, signedIdentity };
  return JSON.stringify({
    default: [{ type: 'reject' }],
    transports: { docker: { '127.0.0.1': [requirement], '': [requirement] } },
  });
}

const annotated = (payload: string, signature: string | Buffer): FakeSignature => ({
  payload,
  annotations: { [SIGNATURE_ANNOTATION]: Buffer.from(signature).toString('base64') },
});

async function inspect(reference: string, key: string): Promise<string | undefined> {
  const { exitCode, stderr } = await runHere(['inspect', reference, '--no-cache', '--verify-key', key]);
  assert.ok(exitCode === 0 || exitCode === 6, stderr);
  return exitCode === 0 ? undefined : stderr;
}

describe('signatures before cosign, skopeo and dlrootfs', () => {
  const scratch = new Scratch();
  const cosign = new Cosign(scratch);
  const policy = scratch.join('policy.json');
  let skopeo: Skopeo;
  let docker: DockerRegistry;
  let registry: FakeRegistry;

  before(async () => {
    skopeo = new Skopeo(scratch, policy);
    [docker, registry] = await Promise.all([DockerRegistry.start(), FakeRegistry.start()]);
  });

  after(async () => {
    await docker[Symbol.asyncDispose]();
    await registry.close();
    scratch[Symbol.dispose]();
  });

  test('what cosign and skopeo sign counts, and for each other', async () => {
    const key = await cosign.generateKeys();
    writeFileSync(policy, policyFor(key));
    const byTag = await docker.push('by-tag', 'latest', { layers: [layer] });
    await cosign.sign(docker.reference('by-tag', byTag.digest));
    const referred = await docker.push('referred', 'latest', { layers: [layer] });
    await cosign.sign(docker.reference('referred', referred.digest), 'oci-1-1');
    await docker.push('plain', 'latest', { layers: [layer] });
    writeFileSync(scratch.join('no-password'), '\n');
    await skopeo.run([
      'copy',
      '--src-tls-verify=false',
      '--dest-tls-verify=false',
      '--sign-by-sigstore-private-key',
      scratch.join('cosign.key'),
      '--sign-passphrase-file',
      scratch.join('no-password'),
      `docker://${docker.reference('plain')}`,
      `docker://${docker.reference('by-skopeo')}`,
    ]);
    for (const name of ['by-tag', 'referred', 'by-skopeo'])
      assert.equal(await inspect(docker.reference(name), key), undefined, name);
    for (const name of ['by-tag', 'by-skopeo']) {
      assert.equal(await skopeo.pull(docker.reference(name)), undefined);
      const flags = ['--key', key, '--insecure-ignore-tlog'];
      assert.equal(await cosign.verify(docker.reference(name), flags), undefined);
    }
    assert.match((await inspect(docker.reference('plain'), key)) ?? '', /it has no signature/);
    assert.match((await skopeo.pull(docker.reference('plain'))) ?? '', /no signature exists/);
  });

  test('a layout that cosign has saved', async () => {
    const key = scratch.join('cosign.pub');
    const layout = scratch.join('saved');
    await cosign.run(['save', '--dir', layout, docker.reference('by-tag')]);
    assert.equal(await inspect(`oci:${layout}`, key), undefined);
    writeFileSync(scratch.join('other.pub'), signingKey().pem);
    assert.match((await inspect(`oci:${layout}`, scratch.join('other.pub'))) ?? '', /not made with the key/);
  });

  /**
   * cosign 2.5 reads bundles from files, not from registries: it checks them as attestations of the manifest's
   * bytes. It does not look at their predicate type, and downloads a trusted root unless it is given one.
   */
  describe('bundles before cosign and dlrootfs', () => {
    const ours = signingKey();
    const key = scratch.join('bundle.pub');
    const root = scratch.join('trusted_root.json');
    const identity = { subject: 'https://github.com/team/app', issuer: 'https://issuer.example' };
    const foreign = sha256('another image');
    let sigstore: FakeSigstore;
    before(async () => {
      sigstore = await FakeSigstore.start();
      writeFileSync(key, ours.pem);
      writeFileSync(root, sigstore.trustedRoot());
    });

    const byKey: Readonly<Record<string, readonly [(digest: string) => string, accepted: boolean]>> = {
      'by the key': [(digest) => keyBundle(ours, statement(digest)), true],
      'by another key': [(digest) => keyBundle(signingKey(), statement(digest)), false],
      'by the key, of another image': [() => keyBundle(ours, statement(foreign)), false],
      'by the key, cut': [(digest) => keyBundle(ours, statement(digest)).slice(0, 300), false],
    };
    const signed = (text: string, options?: BundleOptions) => sigstore.bundle(identity, text, options);
    const byIdentity: Readonly<
      Record<string, readonly [(digest: string) => Promise<string>, accepted: boolean]>
    > = {
      'by the identity': [(digest) => signed(statement(digest)), true],
      'by another identity': [
        (digest) => sigstore.bundle({ ...identity, subject: 'https://example.com/x' }, statement(digest)),
        false,
      ],
      'by another provider': [
        (digest) => sigstore.bundle({ ...identity, issuer: 'https://example.com' }, statement(digest)),
        false,
      ],
      'by the identity of another Sigstore': [
        async (digest) => (await FakeSigstore.start()).bundle(identity, statement(digest)),
        false,
      ],
      'by the identity, of another image': [() => signed(statement(foreign)), false],
      'by the identity, after its certificate': [
        (digest) => signed(statement(digest), { minutesLate: 11 }),
        false,
      ],
      'by the identity, before its certificate': [
        (digest) => signed(statement(digest), { minutesLate: -11 }),
        false,
      ],
      'by the identity, whose log entry is of another statement': [
        (digest) => signed(statement(digest), { logged: statement(foreign) }),
        false,
      ],
    };
    const identityFlags = [
      '--certificate-identity',
      identity.subject,
      '--certificate-oidc-issuer',
      identity.issuer,
      '--trusted-root',
      root,
    ];
    const cases = [
      ...Object.entries(byKey).map(
        ([name, row]) =>
          [
            name,
            row,
            ['--verify-key', key],
            ['--key', key, '--insecure-ignore-tlog', '--trusted-root', root],
          ] as const,
      ),
      ...Object.entries(byIdentity).map(([name, row]) => [name, row, identityFlags, identityFlags] as const),
    ];
    for (const [place, [name, [make, accepted], flags, cosignFlags]] of cases.entries())
      test(`${accepted ? 'accepted' : 'refused'}: ${name}`, async () => {
        const repository = `bundle${place}`;
        const { digest } = registry.push(repository, 'latest', { layers: [layer] });
        const bundle = await make(digest);
        attachBundle(registry, repository, digest, bundle);
        const manifest = await fetch(`${registry.url}/v2/${repository}/manifests/${digest}`, {
          headers: { accept: mediaTypes.oci.manifest },
        });
        const files = [scratch.join(`${repository}.manifest`), scratch.join(`${repository}.json`)] as const;
        writeFileSync(files[0], Buffer.from(await manifest.arrayBuffer()));
        writeFileSync(files[1], bundle);
        const byCosign = await cosign.verifyBundle(files[0], files[1], cosignFlags);
        const argv = ['inspect', registry.reference(repository), '--no-cache', ...flags];
        const { exitCode, stderr } = await runHere(argv);
        assert.equal(byCosign === undefined, accepted, byCosign);
        assert.doesNotMatch(byCosign ?? '', /tuf|dial tcp/);
        assert.equal(exitCode, accepted ? 0 : 6, stderr);
      });
  });

  describe('refused by all three', () => {
    const ours = signingKey();
    const other = signingKey();
    const rsa = signingKey('rsa');
    const key = scratch.join('ours.pub');
    const foreign = sha256('another image');

    /** Signatures under the tag of a manifest, by name. */
    const cases: Readonly<Record<string, (digest: string) => FakeSignature | undefined>> = {
      'no signature': () => undefined,
      'another key': (digest) => simpleSignature(other, simpleSigning(digest)),
      'a key of another kind': (digest) => simpleSignature(rsa, simpleSigning(digest)),
      'another image': () => simpleSignature(ours, simpleSigning(foreign)),
      'a payload changed after it was signed': (digest) => ({
        payload: simpleSigning(digest),
        annotations: signedBy(ours, simpleSigning(foreign)),
      }),
      'a space added to the payload': (digest) => ({
        payload: `${simpleSigning(digest)} `,
        annotations: signedBy(ours, simpleSigning(digest)),
      }),
      'a signature changed in one bit': (digest) => {
        const payload = simpleSigning(digest);
        const bytes = Buffer.from(signedBy(ours, payload)[SIGNATURE_ANNOTATION]!, 'base64');
        bytes[bytes.length - 1]! ^= 1;
        return annotated(payload, bytes);
      },
      'a signature without its last byte': (digest) => {
        const payload = simpleSigning(digest);
        const bytes = Buffer.from(signedBy(ours, payload)[SIGNATURE_ANNOTATION]!, 'base64');
        return annotated(payload, bytes.subarray(0, -1));
      },
      'an empty signature': (digest) => annotated(simpleSigning(digest), ''),
      'a signature that is not base64': (digest) => ({
        payload: simpleSigning(digest),
        annotations: { [SIGNATURE_ANNOTATION]: '%%%' },
      }),
      'no annotation': (digest) => ({ payload: simpleSigning(digest), annotations: {} }),
      'a signature over the digest of the payload': (digest) => {
        const payload = simpleSigning(digest);
        return annotated(payload, sign('sha256', Buffer.from(sha256(payload)), ours.privateKey));
      },
      'ECDSA with SHA-1': (digest) => {
        const payload = simpleSigning(digest);
        return annotated(payload, sign('sha1', Buffer.from(payload), ours.privateKey));
      },
      'ECDSA with SHA-512': (digest) => {
        const payload = simpleSigning(digest);
        return annotated(payload, sign('sha512', Buffer.from(payload), ours.privateKey));
      },
      'no digest': (digest) =>
        simpleSignature(ours, simpleSigning(digest).replace('docker-manifest-digest', 'digest')),
      'a digest of another algorithm': () =>
        simpleSignature(ours, simpleSigning(`sha512:${'0'.repeat(128)}`)),
      'half a payload': (digest) => simpleSignature(ours, simpleSigning(digest).slice(0, 100)),
      'an empty object': () => simpleSignature(ours, '{}'),
      'a list': () => simpleSignature(ours, '[]'),
      'nothing at all': () => simpleSignature(ours, ''),
    };

    /** cosign accepts these. */
    const taken: typeof cases = {
      'ECDSA in the form of JWS': (digest) => {
        const payload = simpleSigning(digest);
        const form = { key: ours.privateKey, dsaEncoding: 'ieee-p1363' } as const;
        return annotated(payload, sign('sha256', Buffer.from(payload), form));
      },
      'another type': (digest) =>
        simpleSignature(ours, simpleSigning(digest).replace('cosign container image', 'a')),
      'no type': (digest) => simpleSignature(ours, simpleSigning(digest).replace('"type"', '"kind"')),
      'another media type': (digest) => ({
        ...simpleSignature(ours, simpleSigning(digest)),
        mediaType: 'application/octet-stream',
      }),
    };

    before(() => {
      writeFileSync(key, ours.pem);
      writeFileSync(policy, policyFor(key));
    });

    async function answers(name: string) {
      const reference = registry.reference(name);
      const flags = ['--key', key, '--insecure-ignore-tlog'];
      const [byCosign, bySkopeo, here] = await Promise.all([
        cosign.verify(reference, flags),
        skopeo.pull(reference),
        inspect(reference, key),
      ]);
      return { byCosign, bySkopeo, here };
    }

    test('and the right one by none', async () => {
      const { digest } = registry.push('right', 'latest', { layers: [layer] });
      const payload = simpleSigning(digest, registry.host + '/right');
      tagSignatures(registry, 'right', digest, simpleSignature(ours, payload));
      assert.deepEqual(await answers('right'), {
        byCosign: undefined,
        bySkopeo: undefined,
        here: undefined,
      });
    });

    for (const [place, [name, make]] of Object.entries({ ...cases, ...taken }).entries()) {
      const isTaken = Object.hasOwn(taken, name);
      test(isTaken ? `but for cosign: ${name}` : name, async () => {
        const repository = `case${place}`;
        const { digest } = registry.push(repository, 'latest', { layers: [layer] });
        const signature = make(digest);
        if (signature) tagSignatures(registry, repository, digest, signature);
        const { byCosign, bySkopeo, here } = await answers(repository);
        assert.equal(byCosign === undefined, isTaken, byCosign);
        assert.notEqual(bySkopeo, undefined, 'skopeo accepts it');
        assert.match(here ?? '', /is not signed by/);
      });
    }

    test('a tag that is an index', async () => {
      const { digest } = registry.push('indexed', 'latest', { layers: [layer] });
      const index = { schemaVersion: 2, mediaType: mediaTypes.oci.index, manifests: [] };
      const bytes = Buffer.from(JSON.stringify(index));
      const tag = `${digest.replace(':', '-')}.sig`;
      registry.putManifest('indexed', tag, { mediaType: mediaTypes.oci.index, bytes });
      const { byCosign, bySkopeo, here } = await answers('indexed');
      assert.ok(byCosign !== undefined && bySkopeo !== undefined && here !== undefined);
    });
  });
});
