import { printable } from '../errors.ts';
import { type Attachments, parseArtifact } from '../oci/artifact.ts';
import { algorithmOf, type Digest, hexOf } from '../oci/digest.ts';
import type { Descriptor } from '../oci/manifest.ts';
import { SIGNATURE_PREDICATE } from './bundle.ts';
import { Refusal, TooMany } from './refusal.ts';

const BUNDLE_TYPE = 'application/vnd.dev.sigstore.bundle.v0.3+json';
/** The older payload, stored as a referrer. */
const COSIGN_ARTIFACT_TYPE = 'application/vnd.dev.cosign.artifact.sig.v1+json';
const SIMPLE_SIGNING_TYPE = 'application/vnd.dev.cosign.simplesigning.v1+json';

/** The annotation of a bundle's descriptor that names its predicate (BUNDLE_SPEC.md). */
const PREDICATE_ANNOTATION = 'dev.sigstore.bundle.predicateType';

/** A signature as it was found; only the digest of its bytes was verified. */
export type Signature = { readonly place: string } & (
  | { readonly form: 'bundle'; readonly bytes: Uint8Array }
  /** The output of `gpg --sign`, with the payload in it. */
  | { readonly form: 'gpg'; readonly bytes: Uint8Array }
  | {
      readonly form: 'simple';
      readonly payload: Uint8Array;
      /** `dev.cosignproject.cosign/signature` and others. */
      readonly annotations: Readonly<Record<string, string>>;
    }
);

/** A place with signatures; its documents are requested by `load`. */
export interface Candidate {
  /** For messages. */
  readonly place: string;
  /** @throws Refusal, and errors of the source */
  load(): Promise<readonly Signature[]>;
}

/** The number of candidates whose documents are requested at once. */
const WIDTH = 6;
/** Limit on the referrers of one manifest that are checked, and on the signatures of one referrer. */
const MAX_CANDIDATES = 200;

/** Limits on the signatures of an image that are read, and on their bytes with the manifests of referrers. */
const MAX_SIGNATURES = 1000;
const MAX_BYTES = 64 * 1024 * 1024;

/** The candidates of a manifest, and why the list may be incomplete. */
export interface FoundSignatures {
  readonly candidates: readonly Candidate[];
  /** Errors of the source, and notes about what was left out. */
  readonly failures: readonly unknown[];
}

/**
 * Finds the signatures of manifests in their repository: among their referrers, and under the tags of cosign.
 */
export class SignatureSearch {
  readonly #open: () => Promise<Attachments | undefined>;
  readonly #all = new Map<Digest, Promise<FoundSignatures>>();
  readonly #tagged = new Map<Digest, Promise<FoundSignatures>>();

  /** @param open called at the first search */
  constructor(open: () => Promise<Attachments | undefined>) {
    let limited: Promise<Attachments | undefined> | undefined;
    this.#open = () => (limited ??= open().then((source) => source && withLimits(source)));
  }

  /** Starts to request the signatures of a manifest, ahead of the call of `find` or of `tagged`. */
  begin(digest: Digest, method: 'find' | 'tagged'): void {
    void this[method](digest).then(({ candidates }) => requestAhead(candidates));
  }

  /** Finds the signatures of a manifest in all forms, bundles first. */
  find(digest: Digest): Promise<FoundSignatures> {
    const known = this.#all.get(digest) ?? this.#findAll(digest);
    this.#all.set(digest, known);
    return known;
  }

  /** Finds the signatures under the tag `sha256-HEX.sig`. */
  tagged(digest: Digest): Promise<FoundSignatures> {
    const known = this.#tagged.get(digest) ?? settled(this.#fromTag(digest));
    this.#tagged.set(digest, known);
    return known;
  }

  async #findAll(digest: Digest): Promise<FoundSignatures> {
    const parts = await Promise.all([settled(this.#fromReferrers(digest)), this.tagged(digest)]);
    return {
      candidates: parts.flatMap(({ candidates }) => candidates),
      failures: parts.flatMap(({ failures }) => failures),
    };
  }

  async #fromTag(digest: Digest): Promise<FoundSignatures> {
    const source = await this.#open();
    const tag = `${algorithmOf(digest)}-${hexOf(digest)}.sig`;
    const bytes = await source?.taggedManifest(tag, digest);
    if (!source || !bytes) return { candidates: [], failures: [] };
    const { layers } = parseArtifact(bytes, `the tag ${tag}`);
    const candidates = layers
      .filter(({ mediaType }) => mediaType === SIMPLE_SIGNING_TYPE)
      .map((layer, index) =>
        candidateOf(`signature ${index + 1} of the tag ${tag}`, async (place) => [
          await simpleSignature(source, layer, place),
        ]),
      );
    return cut(candidates, MAX_SIGNATURES, false);
  }

  async #fromReferrers(digest: Digest): Promise<FoundSignatures> {
    const source = await this.#open();
    if (!source) return { candidates: [], failures: [] };
    const { descriptors, isCut } = await source.referrers(digest, [BUNDLE_TYPE, COSIGN_ARTIFACT_TYPE]);
    const candidates = descriptors
      .filter((descriptor) => !isOtherAttestation(descriptor))
      .map((descriptor) =>
        candidateOf(`referrer ${descriptor.digest}`, (place) => ofReferrer(source, descriptor, place)),
      );
    return cut(candidates, MAX_CANDIDATES, isCut);
  }
}

/** Limits the number of blobs that are read, and the bytes of blobs and manifests. */
function withLimits(source: Attachments): Attachments {
  let blobs = 0;
  let bytes = 0;
  const count = (size: number): void => {
    bytes += size;
    if (bytes > MAX_BYTES) throw new TooMany(`the image has more than ${MAX_BYTES} bytes of signatures`);
  };
  return {
    referrers: (digest, types) => source.referrers(digest, types),
    taggedManifest: (tag, subject) => source.taggedManifest(tag, subject),
    manifest: async (digest) => {
      const found = await source.manifest(digest);
      count(found?.length ?? 0);
      return found;
    },
    blob: async (blob) => {
      blobs += 1;
      if (blobs > MAX_SIGNATURES) throw new TooMany(`the image has more than ${MAX_SIGNATURES} signatures`);
      count(blob.size);
      return await source.blob(blob);
    },
  };
}

/**
 * Limits the candidates.
 *
 * @param isCut the source has more
 */
function cut(all: readonly Candidate[], limit: number, isCut: boolean): FoundSignatures {
  const candidates = all.slice(0, limit);
  if (!isCut && candidates.length === all.length) return { candidates, failures: [] };
  const message = `there are more signatures; the first ${candidates.length} were looked at`;
  return { candidates, failures: [new TooMany(message)] };
}

/** True if the annotation says that the bundle is another attestation, such as a provenance. */
function isOtherAttestation({ annotations = {} }: Descriptor): boolean {
  const predicate = annotations[PREDICATE_ANNOTATION];
  return predicate !== undefined && predicate !== SIGNATURE_PREDICATE;
}

async function settled(found: Promise<FoundSignatures>): Promise<FoundSignatures> {
  return await found.catch((error: unknown) => ({ candidates: [], failures: [error] }));
}

/** Returns a candidate that loads its documents once. */
function candidateOf(place: string, load: (place: string) => Promise<readonly Signature[]>): Candidate {
  let loading: Promise<readonly Signature[]> | undefined;
  return { place, load: () => (loading ??= load(place)) };
}

async function ofReferrer(
  source: Attachments,
  { digest }: Descriptor,
  place: string,
): Promise<readonly Signature[]> {
  const bytes = await source.manifest(digest);
  if (!bytes) throw new Refusal('its manifest does not exist');
  const artifact = parseArtifact(bytes, 'its manifest');
  const read = READERS.get(artifact.type);
  if (!read) throw new Refusal(`it is of type ${printable(artifact.type, 80)}, no signature`);
  const layers = artifact.layers.filter(({ mediaType }) => mediaType === read.type);
  if (layers.length === 0) throw new Refusal('it holds no signature');
  if (layers.length > MAX_CANDIDATES) throw new Refusal(`it holds ${layers.length} signatures`);
  return await Promise.all(layers.map((layer) => read.load(source, layer, place)));
}

/** Reads the signatures of one type of artifact. */
interface Reader {
  /** The media type of the layers that are signatures. */
  readonly type: string;
  readonly load: (source: Attachments, layer: Descriptor, place: string) => Promise<Signature>;
}

const READERS: ReadonlyMap<string, Reader> = new Map([
  [BUNDLE_TYPE, { type: BUNDLE_TYPE, load: bundleSignature }],
  [COSIGN_ARTIFACT_TYPE, { type: SIMPLE_SIGNING_TYPE, load: simpleSignature }],
]);

async function bundleSignature(source: Attachments, layer: Descriptor, place: string): Promise<Signature> {
  return { form: 'bundle', place, bytes: await source.blob(layer) };
}

async function simpleSignature(source: Attachments, layer: Descriptor, place: string): Promise<Signature> {
  const { annotations = {} } = layer;
  return { form: 'simple', place, payload: await source.blob(layer), annotations };
}

/** Requests the documents of the first candidates. */
function requestAhead(candidates: readonly Candidate[]): void {
  for (const next of candidates.slice(0, WIDTH)) next.load().catch(() => undefined);
}

/**
 * Yields the signatures of the candidates, while the next ones are requested ahead; for one that cannot be
 * loaded, its error.
 */
export async function* signaturesOf(
  candidates: readonly Candidate[],
): AsyncGenerator<Signature | { readonly place: string; readonly error: unknown }> {
  for (const [index, candidate] of candidates.entries()) {
    requestAhead(candidates.slice(index));
    try {
      yield* await candidate.load();
    } catch (error) {
      yield { place: candidate.place, error };
    }
  }
}
