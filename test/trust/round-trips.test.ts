/**
 * A pull with signatures takes at most two round trips more than one without. The test counts rounds: the
 * registry answers the requests of a round when all of them have arrived.
 */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { file, tar } from '../support/archive.ts';
import { FakeRegistry, type LoggedRequest } from '../support/fake-registry.ts';
import { mediaTypes } from '../support/fake-image.ts';
import { runHere } from '../support/in-process.ts';
import { Scratch } from '../support/program.ts';
import {
  attachBundle,
  attachSignatures,
  BUNDLE_TYPE,
  keyBundle,
  signingKey,
  simpleSignature,
  simpleSigning,
  statement,
  tagSignatures,
} from '../support/signatures.ts';

const layer = { tar: tar(file('etc/motd', 'hello')) };
const ours = signingKey();

/**
 * Holds the requests of a round until all have arrived. It records a request that is in no round, and lets it
 * pass.
 */
class Rounds {
  readonly unexpected: string[] = [];
  #rounds: readonly (readonly string[])[] = [];
  #place = 0;
  #held: { readonly path: string; readonly release: () => void }[] = [];

  expect(rounds: readonly (readonly string[])[]): void {
    this.#rounds = rounds;
  }

  get left(): readonly (readonly string[])[] {
    return this.#rounds.slice(this.#place);
  }

  readonly hold = async ({ path }: LoggedRequest): Promise<void> => {
    if (!this.left.some((round) => round.includes(path))) {
      this.unexpected.push(path);
      return;
    }
    const released = new Promise<void>((release) => this.#held.push({ path, release }));
    this.#releaseRounds();
    await released;
  };

  #releaseRounds(): void {
    for (;;) {
      const round = this.#rounds[this.#place];
      const isHeld = (path: string): boolean => this.#held.some((each) => each.path === path);
      if (!round?.every(isHeld)) return;
      for (const each of this.#held.filter(({ path }) => round.includes(path))) each.release();
      this.#held = this.#held.filter(({ path }) => !round.includes(path));
      this.#place += 1;
    }
  }
}

/** An image with its signature. */
interface Setting {
  readonly registry: FakeRegistry;
  readonly hasApi: boolean;
  /** Digest of the document that the tag points to. */
  readonly digest: string;
}

const ARTIFACT_TYPE = 'application/vnd.dev.cosign.artifact.sig.v1+json';

/**
 * Signs the image, and returns the paths of the signature's documents; each is needed to find the next one.
 */
type Sign = (setting: Setting) => readonly string[];

const layersOf = (registry: FakeRegistry, digest: string): string[] => {
  const manifest = registry.manifestOf('app', digest) as { readonly layers: readonly { digest: string }[] };
  return manifest.layers.map((each) => `/v2/app/blobs/${each.digest}`);
};

/** A registry without the API lists referrers under a tag. */
function refer({ registry, hasApi, digest }: Setting, artifactType: string, referrer: string): string[] {
  if (!hasApi) {
    const manifests = [{ mediaType: mediaTypes.oci.manifest, digest: referrer, size: 1, artifactType }];
    const list = { schemaVersion: 2, mediaType: mediaTypes.oci.index, manifests };
    const bytes = Buffer.from(JSON.stringify(list));
    registry.putManifest('app', digest.replace(':', '-'), { mediaType: mediaTypes.oci.index, bytes });
  }
  return [`/v2/app/manifests/${referrer}`, ...layersOf(registry, referrer)];
}

const forms: Readonly<Record<string, Sign>> = {
  bundle: (setting) => {
    const { registry, digest } = setting;
    const referrer = attachBundle(registry, 'app', digest, keyBundle(ours, statement(digest)));
    return refer(setting, BUNDLE_TYPE, referrer);
  },
  'simple signing as referrer': (setting) => {
    const { registry, digest } = setting;
    const signature = simpleSignature(ours, simpleSigning(digest));
    return refer(setting, ARTIFACT_TYPE, attachSignatures(registry, 'app', digest, signature));
  },
  'simple signing under the tag': (setting) => tagged(setting, setting.digest),
};

function tagged({ registry }: Setting, digest: string): string[] {
  const payload = simpleSigning(digest, registry.reference('app'));
  tagSignatures(registry, 'app', digest, simpleSignature(ours, payload));
  return layersOf(registry, registry.digestOfTag('app', `${digest.replace(':', '-')}.sig`)!);
}

const tag = (digest: string): string => `/v2/app/manifests/${digest.replace(':', '-')}`;
const underTag = (digest: string): readonly string[] => [`${tag(digest)}.sig`];
const everywhere = (digest: string): readonly string[] => [
  `/v2/app/referrers/${digest}`,
  tag(digest),
  `${tag(digest)}.sig`,
];

/**
 * Signatures under a tag, since no policy checks referrers: for the target of the image's tag, or for the
 * last manifest.
 */
const ofPolicy: Readonly<Record<'index' | 'manifest', Sign>> = {
  index: (setting) => tagged(setting, setting.digest),
  manifest: (setting) => {
    const { manifests } = setting.registry.manifestOf('app', setting.digest) as {
      readonly manifests?: readonly { readonly digest: string }[];
    };
    return tagged(setting, manifests?.[0]?.digest ?? setting.digest);
  },
};

describe('round trips', () => {
  const scratch = new Scratch();
  const key = scratch.join('cosign.pub');
  const policy = scratch.join('policy.json');
  let count = 0;

  before(() => {
    writeFileSync(key, ours.pem);
    const signedIdentity = { type: 'matchRepository' };
    const requirement = { type: 'sigstoreSigned', keyPath: key, signedIdentity };
    writeFileSync(policy, JSON.stringify({ default: [requirement] }));
    const registries = scratch.join('home/.config/containers/registries.d');
    mkdirSync(registries, { recursive: true });
    writeFileSync(`${registries}/all.yaml`, 'default-docker: {use-sigstore-attachments: true}');
  });
  after(() => scratch[Symbol.dispose]());

  /**
   * The target of the tag of each image, and the paths to its layer: each path needs the response of the one
   * before.
   */
  const images = {
    manifest: (registry: FakeRegistry) => {
      const { digest } = registry.push('app', 'latest', { layers: [layer] });
      return { digest, signable: [digest], way: [] };
    },
    index: (registry: FakeRegistry) => {
      const { digest, images: all } = registry.pushIndex('app', 'latest', [{ layers: [layer] }]);
      const manifest = all[0]!.digest;
      return { digest, signable: [digest, manifest], way: [`/v2/app/manifests/${manifest}`] };
    },
  };

  interface Row {
    readonly kind: keyof typeof images;
    readonly hasApi: boolean;
    readonly flags: readonly string[];
    /** Undefined: the image is not signed, and no signatures are requested. */
    readonly sign?: Sign;
    /** The requests for the signatures of one manifest. */
    readonly searches?: (digest: string) => readonly string[];
    /** Number of additional round trips. */
    readonly more: number;
  }

  async function pull({ kind, hasApi, flags, sign, searches = () => [], more }: Row): Promise<void> {
    const rounds = new Rounds();
    await using registry = await FakeRegistry.start({ referrers: hasApi, hold: rounds.hold });
    const { digest, signable, way } = images[kind](registry);
    const manifest = registry.manifestOf('app', signable.at(-1)!) as { readonly config: { digest: string } };
    const toLayer = [...way, `/v2/app/blobs/${manifest.config.digest}`];
    const toSignature = sign?.({ registry, hasApi, digest }) ?? [];
    const beside = signable.flatMap((each) => searches(each));
    const height = Math.max(toLayer.length, toSignature.length + (sign ? 1 : 0));
    const between = Array.from({ length: height }, (_, n) => [
      ...(n === 0 ? beside : []),
      ...(n > 0 && sign ? [toSignature[n - 1]].flatMap((path) => path ?? []) : []),
      ...toLayer.slice(n, n + 1),
    ]);
    const all = [['/v2/'], ['/v2/app/manifests/latest'], ...between, layersOf(registry, signable.at(-1)!)];
    rounds.expect(all);
    assert.equal(all.length, toLayer.length + 3 + more);
    const place = scratch.join(`out${(count += 1)}`);
    const argv = [registry.reference('app'), '-d', place, '--cache-dir', `${place}.cache`, ...flags];
    const platform = kind === 'index' ? ['--platform', 'linux/amd64'] : [];
    const result = await runHere([...argv, ...platform], { HOME: scratch.join('home') });
    assert.equal(result.exitCode, 0, result.stderr);
    assert.deepEqual(rounds.left, []);
    assert.deepEqual(rounds.unexpected, []);
    assert.equal(registry.requests.length, new Set(all.flat()).size);
  }

  const limit = { timeout: 60_000 };
  const byKey = ['--verify-key', key];
  for (const kind of ['manifest', 'index'] as const) {
    test(`${kind}, no signature wanted`, limit, async () => {
      await pull({ kind, hasApi: true, flags: [], more: 0 });
    });
    for (const hasApi of [true, false])
      for (const [form, sign] of Object.entries(forms)) {
        const steps = form === 'simple signing under the tag' ? 2 : 3;
        const more = steps - (kind === 'index' ? 2 : 1);
        const name = `${kind}, ${form}, ${hasApi ? 'with' : 'without'} the API for referrers: ${more} more`;
        test(name, limit, async () => {
          await pull({ kind, hasApi, flags: byKey, sign, searches: everywhere, more });
        });
      }
    const more = kind === 'index' ? 0 : 1;
    for (const which of kind === 'index' ? (['index', 'manifest'] as const) : (['manifest'] as const))
      test(`${kind}, the policy wants a signature, which the ${which} has: ${more} more`, limit, async () => {
        await pull({
          kind,
          hasApi: true,
          flags: ['--policy', policy],
          sign: ofPolicy[which],
          searches: underTag,
          more,
        });
      });
  }
});
