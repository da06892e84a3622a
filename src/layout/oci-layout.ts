import { IntegrityError, NotFoundError, UsageError, printable } from '../errors.ts';
import { type Choice, chooseManifest, type ImageIndex, isAttestation } from '../oci/image-index.ts';
import { MAX_CONFIG_BYTES, parseConfig, type ImageConfig } from '../oci/config.ts';
import type { Descriptor } from '../oci/descriptor.ts';
import { algorithmOf, hexOf, verify, type Digest } from '../oci/digest.ts';
import type { Image, Session } from '../oci/image.ts';
import { parseJsonObject } from '../oci/json.ts';
import { describeImage, describeSchema1 } from '../oci/layers.ts';
import {
  type Manifest,
  type ManifestDocument,
  MAX_MANIFEST_BYTES,
  parseManifest,
  verifyManifest,
} from '../oci/manifest.ts';
import { MediaType } from '../oci/media-types.ts';
import type { Platform } from '../oci/platform.ts';
import { findFile, openStored, readDocument, type StoredFiles } from './stored-files.ts';

const REF_NAME = 'org.opencontainers.image.ref.name';
/** The full name, as containerd and Docker write it beside the tag. */
const IMAGE_NAME = 'io.containerd.image.name';

/** Where a blob is in a layout (OCI image-layout.md); a parsed digest cannot lead out of it. */
function blobPath(digest: Digest): string {
  return `blobs/${algorithmOf(digest)}/${hexOf(digest)}`;
}

/** Images in an OCI layout, in a directory or an archive. */
export class OciLayout implements Session {
  readonly #files: StoredFiles;
  readonly #wanted: string | undefined;

  /** `wanted` is a tag, or `@N` for the N-th entry of index.json. */
  constructor(files: StoredFiles, wanted: string | undefined) {
    this.#files = files;
    this.#wanted = wanted;
  }

  async image(platform: Platform, signal: AbortSignal): Promise<Image> {
    const { manifest, digest, config } = await this.#choose(platform, signal);
    const description =
      manifest.kind === 'schema1'
        ? describeSchema1(manifest)
        : describeImage(manifest, config ?? (await this.#config(manifest, signal)), this.#files.name);
    const layers = description.layers.map((layer) => ({
      ...layer,
      open: openStored(this.#files, blobPath(layer.digest), layer.size),
    }));
    return { ...description, digest, layers };
  }

  async *tags(signal: AbortSignal): AsyncIterable<string> {
    const { manifests } = await this.#index(signal);
    yield* new Set(manifests.flatMap((entry) => nameOf(entry) ?? []));
  }

  close(): Promise<void> {
    return this.#files.close();
  }

  async #choose(platform: Platform, signal: AbortSignal): Promise<Choice> {
    const index = await this.#index(signal);
    const entries = selectEntries(index, this.#wanted, this.#files.name);
    const source = {
      manifest: (descriptor: Descriptor) => this.#manifest(descriptor, signal),
      config: (manifest: Manifest) => this.#config(manifest, signal),
    };
    const [entry, another] = entries;
    if (another !== undefined || entry === undefined) {
      return chooseManifest({ ...index, manifests: entries }, platform, source, this.#files.name);
    }
    const document = await this.#manifest(entry, signal);
    if (document.kind === 'index') return chooseManifest(document, platform, source, this.#files.name);
    return { digest: entry.digest, manifest: document };
  }

  async #index(signal: AbortSignal): Promise<ImageIndex> {
    await this.#checkVersion(signal);
    const what = `index.json of ${this.#files.name}`;
    const file = await findFile(this.#files, 'index.json', 'its index');
    const document = parseManifest(
      await readDocument(file, MAX_MANIFEST_BYTES, what, signal),
      MediaType.ociIndex,
      what,
    );
    if (document.kind !== 'index') throw new IntegrityError(`${what} is not an image index`);
    return document;
  }

  /** The file that marks a layout; skopeo does without it. */
  async #checkVersion(signal: AbortSignal): Promise<void> {
    const file = await this.#files.find('oci-layout');
    if (file === undefined) return;
    const what = `oci-layout of ${this.#files.name}`;
    const { imageLayoutVersion } = parseJsonObject(await readDocument(file, 65_536, what, signal), what);
    if (typeof imageLayoutVersion === 'string' && imageLayoutVersion.startsWith('1.')) return;
    throw new IntegrityError(
      `${what} names version ${printable(JSON.stringify(imageLayoutVersion) ?? 'nothing', 80)}; 1.0.0 is known`,
    );
  }

  async #manifest(descriptor: Descriptor, signal: AbortSignal): Promise<ManifestDocument> {
    const what = `manifest ${descriptor.digest} of ${this.#files.name}`;
    const bytes = await this.#blob(descriptor, MAX_MANIFEST_BYTES, what, signal);
    const document = parseManifest(bytes, descriptor.mediaType, what);
    verifyManifest(document, descriptor.digest, what);
    return document;
  }

  async #config(manifest: Manifest, signal: AbortSignal): Promise<ImageConfig> {
    const what = `the config of ${this.#files.name}`;
    const bytes = await this.#blob(manifest.config, MAX_CONFIG_BYTES, what, signal);
    verify(bytes, manifest.config.digest, what);
    return parseConfig(bytes, what);
  }

  async #blob(descriptor: Descriptor, max: number, what: string, signal: AbortSignal): Promise<Buffer> {
    const file = await findFile(this.#files, blobPath(descriptor.digest), what);
    if (file.size === descriptor.size) return readDocument(file, max, what, signal);
    throw new IntegrityError(`${what} has ${file.size} bytes but must have ${descriptor.size}`, {
      code: 'SIZE_MISMATCH',
    });
  }
}

function nameOf({ annotations }: Descriptor): string | undefined {
  return annotations?.[REF_NAME] ?? annotations?.[IMAGE_NAME];
}

/**
 * The entries of index.json that are the image: with a tag those of that name, without one all, when they have but one name. More than
 * one of a name are the image for several platforms.
 *
 * @throws NotFoundError and UsageError that list the names
 */
function selectEntries(index: ImageIndex, wanted: string | undefined, what: string): readonly Descriptor[] {
  const { manifests } = index;
  if (wanted === undefined) {
    const images = manifests.filter((entry) => !isAttestation(entry) && entry.artifactType === undefined);
    if (images.length === 0)
      throw new NotFoundError(`${what} is empty: its index lists no image`, {
        hint: 'save or copy the image again',
      });
    if (new Set(images.map(nameOf)).size === 1) return images;
    throw new UsageError(`${what} has more than one image`, {
      code: 'AMBIGUOUS_IMAGE',
      hint: namesHint(images),
    });
  }
  const place = /^@(\d{1,9})$/.exec(wanted)?.[1];
  const found =
    place === undefined
      ? manifests.filter(
          ({ annotations }) => annotations?.[REF_NAME] === wanted || annotations?.[IMAGE_NAME] === wanted,
        )
      : manifests.slice(Number(place), Number(place) + 1);
  if (found.length > 0) return found;
  throw new NotFoundError(`${what} has no image "${printable(wanted, 120)}"`, { hint: namesHint(manifests) });
}

function namesHint(entries: readonly Descriptor[]): string {
  const names = entries.map((entry, place) => printable(nameOf(entry) ?? `@${place}`, 80));
  return names.length === 0
    ? 'its index lists no image'
    : `name one after a colon: ${[...new Set(names)].join(', ')}`;
}
