/** Signatures by keys and identities, in every format and place, and changes of them by a registry. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { readAuthorities } from '../../src/trust/trusted-root.ts';
import { file, tar } from '../support/archive.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { mediaTypes, sha256 } from '../support/fake-image.ts';
import { runHere } from '../support/in-process.ts';
import { type ProgramResult, Scratch } from '../support/program.ts';
import {
  attachBundle,
  attachSignatures,
  BUNDLE_TYPE,
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
import { envelopeOf, FakeSigstore } from '../support/sigstore.ts';

const layer = { tar: tar(file('etc/motd', 'hello')) };
const amd64 = { os: 'linux', architecture: 'amd64' };
const workflow = {
  subject: 'https://github.com/team/app/.github/workflows/release.yml@refs/heads/main',
  issuer: 'https://token.actions.githubusercontent.com',
};
const stranger = { subject: 'https://example.com/stranger', issuer: 'https://example.com' };

const ours = signingKey();
const other = signingKey();

/** A repository with one image for two platforms. */
interface Setting {
  readonly registry: FakeRegistry;
  readonly name: string;
  readonly index: string;
  readonly manifest: string;
}

/** Checks the signatures without a pull, which would take half a second. */
async function accepts({ registry: from, name }: Setting, flags: readonly string[]): Promise<void> {
  const platform = ['--platform', 'linux/amd64'];
  const result = await runHere(['inspect', from.reference(name), '--no-cache', ...platform, ...flags]);
  assert.match(result.stdout, /^Signed by: /m, result.stderr);
  assert.equal(result.exitCode, 0);
}

/** Returns the first half of base64, in whole groups. */
const half = (text: string): string => text.slice(0, (text.length >> 3) << 2);

/** The verification material of a bundle. */
interface Material {
  readonly tlogEntries: readonly unknown[];
}

const materialOf = (bundle: string): Material =>
  (JSON.parse(bundle) as { readonly verificationMaterial: Material }).verificationMaterial;

/** Returns the bundle with other verification material. */
const withMaterial = (bundle: string, material: Material): string => {
  const verificationMaterial = { ...materialOf(bundle), ...material };
  return JSON.stringify({ ...(JSON.parse(bundle) as object), verificationMaterial });
};

const simple = (digest: string) => simpleSignature(ours, simpleSigning(digest));

const tagged =
  (make: (s: Setting) => FakeSignature) =>
  (s: Setting): void =>
    tagSignatures(s.registry, s.name, s.index, make(s));
const bundled =
  (make: (s: Setting) => string) =>
  (s: Setting): void =>
    void attachBundle(s.registry, s.name, s.index, make(s));

describe('signatures', () => {
  const scratch = new Scratch();
  let sigstore: FakeSigstore;
  let registry: FakeRegistry;
  let old: FakeRegistry;
  const key = scratch.join('cosign.pub');
  const root = scratch.join('trusted_root.json');
  let count = 0;

  before(async () => {
    [sigstore, registry, old] = await Promise.all([
      FakeSigstore.start(),
      FakeRegistry.start(),
      FakeRegistry.start({ referrers: false }),
    ]);
    writeFileSync(key, ours.pem);
    writeFileSync(root, sigstore.trustedRoot());
  });

  after(async () => {
    await registry.close();
    await old.close();
    scratch[Symbol.dispose]();
  });

  function setting(of: FakeRegistry = registry): Setting {
    const name = `app${(count += 1)}`;
    const arm64 = { layers: [layer], platform: { os: 'linux', architecture: 'arm64' } };
    const index = of.pushIndex(name, 'latest', [{ layers: [layer], platform: amd64 }, arm64]);
    return { registry: of, name, index: index.digest, manifest: index.images[0]!.digest };
  }

  const byKey = ['--verify-key', key];
  const byIdentity = [
    '--certificate-identity',
    workflow.subject,
    '--certificate-oidc-issuer',
    workflow.issuer,
    '--trusted-root',
    root,
  ];

  /** Pulls without a cache. A refused pull must leave nothing and request no layer. */
  async function pull({ registry: from, name }: Setting, flags: readonly string[]): Promise<ProgramResult> {
    const place = scratch.join(`out${(count += 1)}`);
    const argv = [from.reference(name), '-d', place, '--no-cache', '--platform', 'linux/amd64', ...flags];
    const result = await runHere(argv);
    if (result.exitCode !== 0) {
      assert.ok(!existsSync(place));
      assert.deepEqual(
        readdirSync(scratch.path).filter((each) => each.includes(place)),
        [],
      );
      assert.deepEqual(from.log(new RegExp(`/${name}/blobs/${sha256OfLayer()}`)), []);
    }
    return result;
  }

  let layerDigest = '';
  function sha256OfLayer(): string {
    layerDigest ||= registry.push('layer', 'latest', { layers: [layer] }).layers[0]!.digest;
    return layerDigest;
  }

  describe('count', () => {
    const cases: Readonly<Record<string, (s: Setting) => unknown>> = {
      'tag, of the index': (s) => tagSignatures(s.registry, s.name, s.index, simple(s.index)),
      'tag, of the manifest': (s) => tagSignatures(s.registry, s.name, s.manifest, simple(s.manifest)),
      'referrer, of the index': (s) => attachSignatures(s.registry, s.name, s.index, simple(s.index)),
      'referrer, of the manifest': (s) =>
        attachSignatures(s.registry, s.name, s.manifest, simple(s.manifest)),
      'bundle, of the index': (s) =>
        attachBundle(s.registry, s.name, s.index, keyBundle(ours, statement(s.index))),
      'bundle, of the manifest': (s) =>
        attachBundle(s.registry, s.name, s.manifest, keyBundle(ours, statement(s.manifest))),
      'the second of two': (s) =>
        tagSignatures(
          s.registry,
          s.name,
          s.index,
          simpleSignature(other, simpleSigning(s.index)),
          simple(s.index),
        ),
      'the second of two referrers': (s) => {
        attachBundle(s.registry, s.name, s.index, keyBundle(other, statement(s.index)));
        attachBundle(s.registry, s.name, s.index, keyBundle(ours, statement(s.index)));
      },
      'the tag, beside the bundle of another': (s) => {
        attachBundle(s.registry, s.name, s.index, keyBundle(other, statement(s.index)));
        tagSignatures(s.registry, s.name, s.index, simple(s.index));
      },
      'beside a malformed referrer': (s) => {
        attachBundle(s.registry, s.name, s.index, '{"mediaType":');
        attachBundle(s.registry, s.name, s.index, keyBundle(ours, statement(s.index)));
      },
      'made for another repository': (s) =>
        tagSignatures(
          s.registry,
          s.name,
          s.index,
          simpleSignature(ours, simpleSigning(s.index, 'example.com/elsewhere')),
        ),
    };
    for (const [name, sign] of Object.entries(cases)) {
      test(`by key: ${name}`, async () => {
        const here = setting();
        await sign(here);
        await accepts(here, byKey);
      });
    }

    for (const kind of ['p256', 'p384', 'ed25519', 'rsa'] as const) {
      test(`by a key of type ${kind}`, async () => {
        const here = setting();
        const pair = signingKey(kind);
        const own = scratch.join(`${kind}.pub`);
        writeFileSync(own, pair.pem);
        tagSignatures(registry, here.name, here.index, simpleSignature(pair, simpleSigning(here.index)));
        await accepts(here, ['--verify-key', key, '--verify-key', own]);
      });
    }

    test('by identity: bundle with the promise of the log', async () => {
      const here = setting();
      attachBundle(registry, here.name, here.index, await sigstore.bundle(workflow, statement(here.index)));
      await accepts(here, byIdentity);
    });

    test('by identity: the second of two bundles', async () => {
      const here = setting();
      for (const signer of [stranger, workflow])
        attachBundle(registry, here.name, here.index, await sigstore.bundle(signer, statement(here.index)));
      await accepts(here, byIdentity);
    });

    test('and inspect prints each signer, and where its signature is', async () => {
      const here = setting();
      const inspect = ['inspect', registry.reference(here.name), '--no-cache', '--platform', 'linux/amd64'];
      const bundle = await sigstore.bundle(workflow, statement(here.index));
      const byWorkflow = attachBundle(registry, here.name, here.index, bundle);
      const bundleByKey = attachBundle(
        registry,
        here.name,
        here.index,
        keyBundle(ours, statement(here.index)),
      );
      tagSignatures(registry, here.name, here.manifest, simple(here.manifest));
      const lines = async (flags: readonly string[]): Promise<string[]> => {
        const { stdout, stderr } = await runHere([...inspect, ...flags]);
        return (stdout.match(/(?<=^Signed by: +)\S.*$/gm) ?? [stderr]).toSorted();
      };
      const { subject, issuer } = workflow;
      assert.deepEqual(await lines(byIdentity), [`${subject} (${issuer}): referrer ${byWorkflow}`]);
      assert.deepEqual(
        await lines(byKey),
        [
          `the key ${key}: referrer ${bundleByKey}`,
          `the key ${key}, as example.com/app: signature 1 of the tag ${here.manifest.replace(':', '-')}.sig`,
        ].toSorted(),
      );
    });

    for (const timeStamp of ['', '5', '25', '125', '123456', '123456789'])
      test(`by identity: bundle with a time stamp (fraction: ${timeStamp || 'none'}) and no promise`, async () => {
        const here = setting();
        const bundle = await sigstore.bundle(workflow, statement(here.index), { timeStamp });
        attachBundle(registry, here.name, here.index, bundle);
        await accepts(here, byIdentity);
      });

    test('by identity: the tag, with annotations', async () => {
      const here = setting();
      const payload = simpleSigning(here.index);
      const annotations = await sigstore.annotations(workflow, payload);
      tagSignatures(registry, here.name, here.index, { payload, annotations });
      await accepts(here, byIdentity);
    });

    test('by regular expressions', async () => {
      const here = setting();
      attachBundle(registry, here.name, here.index, await sigstore.bundle(workflow, statement(here.index)));
      const wanted = [
        '--certificate-identity-regexp',
        '^https://github\\.com/team/.+@refs/heads/main$',
        '--certificate-oidc-issuer-regexp',
        '(?i)GITHUB',
        '--trusted-root',
        root,
      ];
      await accepts(here, wanted);
    });

    test('by a private authority that logs no certificates', async () => {
      const here = setting();
      const own = await FakeSigstore.start(false);
      const privateRoot = scratch.join('private.json');
      writeFileSync(privateRoot, own.trustedRoot());
      attachBundle(registry, here.name, here.index, await own.bundle(workflow, statement(here.index)));
      await accepts(here, [...byIdentity.slice(0, -1), privateRoot]);
    });

    test('a referrer under the tag of a registry without the API', async () => {
      const here = setting(old);
      const digest = attachBundle(old, here.name, here.index, keyBundle(ours, statement(here.index)));
      const list = {
        schemaVersion: 2,
        mediaType: mediaTypes.oci.index,
        manifests: [
          {
            mediaType: mediaTypes.oci.manifest,
            digest,
            size: 1,
            artifactType: BUNDLE_TYPE,
          },
        ],
      };
      const bytes = Buffer.from(JSON.stringify(list));
      old.putManifest(here.name, here.index.replace(':', '-'), { mediaType: mediaTypes.oci.index, bytes });
      await accepts(here, byKey);
    });

    test('and the layers are pulled', async () => {
      const here = setting();
      tagSignatures(registry, here.name, here.index, simple(here.index));
      assert.equal((await pull(here, byKey)).exitCode, 0);
    });

    test('of an image that is named by digest', async () => {
      const here = setting();
      tagSignatures(registry, here.name, here.manifest, simple(here.manifest));
      const place = scratch.join('by-digest');
      const reference = registry.reference(here.name, here.manifest);
      const result = await runHere([reference, '-d', place, '--no-cache', ...byKey]);
      assert.equal(result.exitCode, 0, result.stderr);
    });
  });

  describe('do not count, with exit code 6 and the reason', () => {
    const foreign = sha256('another image');
    const cases: Readonly<Record<string, readonly [(s: Setting) => unknown, RegExp]>> = {
      'no signature': [() => undefined, /is not signed by the key .*: it has no signature$/m],
      'another key': [
        tagged((s) => simpleSignature(other, simpleSigning(s.index))),
        /signature 1 of the tag sha256-\w+\.sig: it was not made with the key/,
      ],
      'another image': [
        tagged(() => simpleSignature(ours, simpleSigning(foreign))),
        new RegExp(`it is for another image, ${foreign}`),
      ],
      'another platform alone': [
        (s) => {
          const arm = s.registry.manifestOf(s.name, s.index) as {
            readonly manifests: readonly { readonly digest: string }[];
          };
          const { digest } = arm.manifests[1]!;
          tagSignatures(s.registry, s.name, digest, simple(digest));
          attachBundle(s.registry, s.name, digest, keyBundle(ours, statement(digest)));
        },
        /it has no signature$/m,
      ],
      'the index, under the tag for the manifest': [
        (s) => tagSignatures(s.registry, s.name, s.manifest, simple(s.index)),
        /signature 1 of the tag .* is for another image, sha256:/,
      ],
      'several, each with its reason': [
        (s) => {
          attachBundle(s.registry, s.name, s.index, keyBundle(other, statement(s.index)));
          attachSignatures(s.registry, s.name, s.manifest, simple(foreign));
          tagSignatures(s.registry, s.name, s.index, { payload: '{}', annotations: {} }, simple(foreign));
        },
        new RegExp(
          'referrer [^;]*: it was not made with the key [^;]*; ' +
            'signature 1 of the tag [^;]*: it has no dev[^;]*; ' +
            `signature 2 of the tag [^;]*: it is for another image, ${foreign}; ` +
            `referrer [^;]*: it is for another image, ${foreign}$`,
          'm',
        ),
      ],
      'an annotation of 3 MiB': [
        tagged((s) => ({
          payload: simpleSigning(s.index),
          annotations: { [SIGNATURE_ANNOTATION]: 'A'.repeat(3 * 2 ** 20) },
        })),
        /^.{0,400}: it was not made with the key .{0,200}$/m,
      ],
      'a payload that was changed': [
        tagged((s) => ({
          payload: simpleSigning(s.index),
          annotations: signedBy(ours, simpleSigning(foreign)),
        })),
        /not made with the key/,
      ],
      'another type of payload': [
        tagged((s) =>
          simpleSignature(ours, simpleSigning(s.index).replace('cosign container image', 'some')),
        ),
        /its payload is of type "some signature"/,
      ],
      'a payload that is no JSON': [tagged(() => simpleSignature(ours, '{"critical":')), /not valid JSON/],
      'a payload without claim': [tagged(() => simpleSignature(ours, '{}')), /has no "critical"/],
      'no annotation': [
        tagged((s) => ({ payload: simpleSigning(s.index), annotations: {} })),
        /has no dev.cosignproject.cosign\/signature in base64/,
      ],
      'an annotation that is not base64': [
        tagged((s) => ({ payload: simpleSigning(s.index), annotations: { [SIGNATURE_ANNOTATION]: '%' } })),
        /in base64/,
      ],
      'another media type': [
        tagged((s) => ({
          ...simpleSignature(ours, simpleSigning(s.index)),
          mediaType: 'application/octet-stream',
        })),
        /it has no signature/,
      ],
      'a truncated bundle': [
        bundled((s) => keyBundle(ours, statement(s.index)).slice(0, 300)),
        /referrer sha256:\w+: the bundle is not valid JSON/,
      ],
      'a bundle of another image': [bundled(() => keyBundle(ours, statement(foreign))), /another image/],
      'a bundle with another predicate': [
        bundled((s) => keyBundle(ours, statement(s.index, 'https://slsa.dev/provenance/v1'))),
        /it is no signature but an attestation of type https:\/\/slsa\.dev\/provenance\/v1/,
      ],
      'a bundle without subject': [
        bundled((s) => keyBundle(ours, statement(s.index).replace('"subject"', '"object"'))),
        /the statement has no subject/,
      ],
      'a bundle that is no statement': [
        bundled((s) => keyBundle(ours, statement(s.index).replace('in-toto.io', 'example.com'))),
        /no in-toto statement/,
      ],
      'an empty bundle': [bundled(() => '{}'), /invalid bundle: .*mediaType/],
      'a bundle with two signatures, of which one is right': [
        bundled((s) => {
          const made = JSON.parse(keyBundle(ours, statement(s.index))) as {
            dsseEnvelope: { signatures: object[] };
          };
          const { signatures } = envelopeOf(
            statement(s.index),
            'application/vnd.in-toto+json',
            other,
          ).envelope;
          made.dsseEnvelope.signatures.push(...signatures);
          return JSON.stringify(made);
        }),
        /invalid bundle: content\.dsseEnvelope\.signatures/,
      ],
      'a bundle nested deep': [bundled(() => '['.repeat(100_000)), /nested more than/],
    };
    for (const [name, [sign, reason]] of Object.entries(cases)) {
      test(name, async () => {
        const here = setting();
        await sign(here);
        const { exitCode, stderr } = await pull(here, byKey);
        assert.match(stderr, reason);
        assert.equal(exitCode, 6);
      });
    }

    const identityCases: Readonly<Record<string, readonly [(digest: string) => Promise<string>, RegExp]>> = {
      'of another identity': [
        (digest) => sigstore.bundle(stranger, statement(digest)),
        /its certificate is for https:\/\/example\.com\/stranger, by the provider https:\/\/example\.com/,
      ],
      'of the same name at another provider': [
        (digest) => sigstore.bundle({ ...workflow, issuer: stranger.issuer }, statement(digest)),
        /by the provider https:\/\/example\.com/,
      ],
      'after its certificate has expired': [
        (digest) => sigstore.bundle(workflow, statement(digest), { minutesLate: 11 }),
        /certificate is not valid or expired/,
      ],
      'before its certificate is valid': [
        (digest) => sigstore.bundle(workflow, statement(digest), { minutesLate: -11 }),
        /certificate is not valid or expired/,
      ],
      'whose log entry is of the same statement, signed by another': [
        async (digest) =>
          withMaterial(await sigstore.bundle(workflow, statement(digest)), {
            tlogEntries: materialOf(await sigstore.bundle(stranger, statement(digest))).tlogEntries,
          }),
        /tlog entry signature mismatch/,
      ],
      'with a second log entry, of another': [
        async (digest) => {
          const [made, another] = [workflow, stranger].map((by) => sigstore.bundle(by, statement(digest)));
          const tlogEntries = [await made!, await another!].flatMap((each) => materialOf(each).tlogEntries);
          return withMaterial(await made!, { tlogEntries });
        },
        /duplicate timestamp|mismatch/,
      ],
      ...Object.fromEntries(
        Object.entries({
          payload: /payload hash mismatch/,
          sig: /signature mismatch/,
          rawBytes: /past end of buffer/,
          canonicalizedBody: /promise could not be verified/,
        }).map(([member, reason]) => [
          `with half of its ${member}`,
          [
            async (digest: string) => {
              const made = await sigstore.bundle(workflow, statement(digest));
              return made.replace(new RegExp(`(?<="${member}":")[^"]+`), half);
            },
            reason,
          ] as const,
        ]),
      ),
      'whose log entry is of another statement': [
        (digest) => sigstore.bundle(workflow, statement(digest), { logged: statement(foreign) }),
        /tlog entry signature mismatch/,
      ],
      'of another image': [() => sigstore.bundle(workflow, statement(foreign)), /another image/],
      'of another kind': [
        (digest) => sigstore.bundle(workflow, statement(digest, 'https://example.com/x')),
        /no signature but an attestation/,
      ],
      'of another Sigstore': [
        async (digest) => (await FakeSigstore.start()).bundle(workflow, statement(digest)),
        /certificate/i,
      ],
      'by a key': [(digest) => Promise.resolve(keyBundle(ours, statement(digest))), /timestamps/],
      'without log entry': [
        async (digest) =>
          withMaterial(await sigstore.bundle(workflow, statement(digest)), { tlogEntries: [] }),
        /timestamps/,
      ],
      'whose time stamp was changed': [
        async (digest) => {
          const made = await sigstore.bundle(workflow, statement(digest), { timeStamp: '123456' });
          return made.replace(/(?<="signedTimestamp":")[^"]+/, (stamp) =>
            Buffer.from(
              Buffer.from(stamp, 'base64').toString('latin1').replace('.123456Z', '.123457Z'),
              'latin1',
            ).toString('base64'),
          );
        },
        /timestamp could not be verified/,
      ],
      'whose time stamp has no valid time': [
        (digest) => sigstore.bundle(workflow, statement(digest), { timeStamp: 'x' }),
        /its time stamp has no valid time/,
      ],
      'with hundreds of log entries': [
        async (digest) => {
          const made = await sigstore.bundle(workflow, statement(digest));
          const [entry] = materialOf(made).tlogEntries;
          return withMaterial(made, { tlogEntries: Array.from({ length: 300 }, () => entry) });
        },
        /more than 16 log entries/,
      ],
    };
    for (const [name, [make, reason]] of Object.entries(identityCases)) {
      test(`a bundle ${name}`, async () => {
        const here = setting();
        attachBundle(registry, here.name, here.index, await make(here.index));
        const { exitCode, stderr } = await pull(here, byIdentity);
        assert.match(stderr, reason);
        assert.equal(exitCode, 6);
      });
    }

    test('annotations whose log entry is of another payload', async () => {
      const here = setting();
      const payload = simpleSigning(here.index);
      const { 'dev.sigstore.cosign/bundle': entry = '' } = await sigstore.annotations(
        workflow,
        simpleSigning(foreign),
      );
      const annotations = await sigstore.annotations(workflow, payload);
      annotations['dev.sigstore.cosign/bundle'] = entry;
      tagSignatures(registry, here.name, here.index, { payload, annotations });
      const { exitCode, stderr } = await pull(here, byIdentity);
      assert.match(stderr, /signature 1 .*: signature mismatch/);
      assert.equal(exitCode, 6);
    });

    test('the signature of an index of another repository, under the tag for this one', async () => {
      const here = setting();
      const elsewhere = `${here.name}-elsewhere`;
      const arm = [{ layers: [layer], platform: { os: 'linux', architecture: 'arm64' } }];
      const { digest } = registry.pushIndex(elsewhere, 'latest', arm);
      const payload = simpleSigning(digest, registry.reference(elsewhere));
      tagSignatures(registry, here.name, here.index, simpleSignature(ours, payload));
      attachBundle(registry, here.name, here.index, keyBundle(ours, statement(digest)));
      const { exitCode, stderr } = await pull(here, byKey);
      assert.match(stderr, /referrer .*another image.*; signature 1 of the tag .*another image/s);
      assert.equal(exitCode, 6);
    });

    test('annotations whose certificate had expired, or is missing', async () => {
      const here = setting();
      const payload = simpleSigning(here.index);
      const late = await sigstore.annotations(workflow, payload, 11);
      tagSignatures(
        registry,
        here.name,
        here.index,
        { payload, annotations: late },
        simpleSignature(ours, payload),
      );
      const { exitCode, stderr } = await pull(here, byIdentity);
      assert.match(stderr, /signature 1 .*certificate.*; signature 2 .*: it has no certificate/s);
      assert.equal(exitCode, 6);
    });

    test('the error says how old the embedded root is', async () => {
      const here = setting();
      attachBundle(registry, here.name, here.index, await sigstore.bundle(workflow, statement(here.index)));
      const { exitCode, stderr } = await pull(here, byIdentity.slice(0, 4));
      assert.match(stderr, /^hint: .*the embedded trusted root is of \d{4}-\d\d-\d\d/m);
      assert.equal(exitCode, 6);
    });

    test('and, after half a year, that it is old', async (context) => {
      const { age: now = '' } = await readAuthorities(undefined);
      const made = Date.parse(/\d{4}-\d\d-\d\d/.exec(now)![0]);
      for (const [days, shown] of [
        [180, /^the embedded trusted root is of [-\d]+$/],
        [181, /, 181 days old: a newer one is passed by --trusted-root$/],
      ] as const) {
        context.mock.timers.enable({ apis: ['Date'], now: made + days * 86_400_000 });
        assert.match((await readAuthorities(undefined)).age ?? '', shown);
        context.mock.timers.reset();
      }
    });
  });
});
