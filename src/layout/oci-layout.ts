import { IntegrityError, printable } from '../errors.ts';
import type { Attachments } from '../oci/artifact.ts';
import { MAX_CONFIG_BYTES, parseConfig, type ImageConfig } from '../oci/config.ts';
import { verifyDigest } from '../oci/digest.ts';
import { describeFound, type FoundDocument } from '../oci/image-index.ts';
import type { Image, LocalLayer, Session } from '../oci/image.ts';
import { parseJsonObject } from '../oci/json.ts';
import {
  type Descriptor,
  type ImageIndex,
  isAttestation,
  type Manifest,
  type ManifestDocument,
  MAX_MANIFEST_BYTES,
  parseManifest,
} from '../oci/manifest.ts';
import { MediaType } from '../oci/media-types.ts';
import type { Platform } from '../oci/platform.ts';
import {
  blobPath,
  namesOf,
  openLayoutFile,
  readLayoutDocument,
  selectImage,
  type LayoutFiles,
} from './layout-files.ts';

/** Reads images in an OCI layout, in a directory or an archive. */
export class OciLayout implements Session<LocalLayer> {
  readonly #files: LayoutFiles;
  readonly #wanted: string | undefined;

  /** @param wanted a tag, or `@N` for the N-th entry of index.json */
  constructor(files: LayoutFiles, wanted: string | undefined) {
    this.#files = files;
    this.#wanted = wanted;
  }

  async image(platform: Platform): Promise<Image<LocalLayer>> {
    const source = {
      manifest: (descriptor: Descriptor) => this.#manifest(descriptor),
      config: (manifest: Manifest) => this.#config(manifest),
    };
    const image = await describeFound(await this.#find(), platform, source, this.#files.name);
    const layers = image.layers.map((layer) => ({
      ...layer,
      openLocal: openLayoutFile(this.#files, blobPath(layer.digest), layer.size),
    }));
    return { ...image, layers };
  }

  async *tags(): AsyncIterable<string> {
    const { manifests } = await this.#index();
    yield* new Set(manifests.flatMap((entry) => refNameOf(entry) ?? []));
  }

  async attachments(): Promise<Attachments> {
    const [{ manifests }, { LayoutAttachments }] = await Promise.all([
      this.#index(),
      import('./layout-attachments.ts'),
    ]);
    return new LayoutAttachments(this.#files, manifests);
  }

  close(): Promise<void> {
    return this.#files.close();
  }

  /** Finds the wanted entry of index.json; several entries of one name are an index of platforms. */
  async #find(): Promise<FoundDocument> {
    const index = await this.#index();
    const images = index.manifests.filter(
      (entry) => !isAttestation(entry) && entry.artifactType === undefined,
    );
    const [entry, ...others] = selectImage(
      this.#wanted === undefined ? images : index.manifests,
      this.#wanted,
      this.#files.name,
      {
        nameOf: refNameOf,
        groupOf: refNameOf,
        isNamed: (descriptor, name) => namesOf(descriptor).includes(name),
      },
    );
    if (others.length === 0) return { digest: entry!.digest, document: await this.#manifest(entry!) };
    return { digest: undefined, document: { ...index, manifests: [entry!, ...others] } };
  }

  async #index(): Promise<ImageIndex & Pick<ManifestDocument, 'payload'>> {
    await this.#checkVersion();
    const bytes = await readLayoutDocument(this.#files, 'index.json', 'index.json', {
      max: MAX_MANIFEST_BYTES,
    });
    const what = `index.json of ${this.#files.name}`;
    const document = parseManifest(bytes, MediaType.ociIndex, what);
    if (document.kind !== 'index') throw new IntegrityError(`${what} is not an image index`);
    return document;
  }

  /** Checks the file that marks a layout, which skopeo does not require. */
  async #checkVersion(): Promise<void> {
    if ((await this.#files.find('oci-layout')) === undefined) return;
    const what = `oci-layout of ${this.#files.name}`;
    const bytes = await readLayoutDocument(this.#files, 'oci-layout', 'oci-layout', { max: 65_536 });
    const { imageLayoutVersion: version } = parseJsonObject(bytes, what);
    if (typeof version === 'string' && version.startsWith('1.')) return;
    throw new IntegrityError(
      `${what} names version ${printable(JSON.stringify(version) ?? 'nothing', 80)}; 1.0.0 is known`,
    );
  }

  async #manifest({ digest, mediaType, size }: Descriptor): Promise<ManifestDocument> {
    const what = `manifest ${digest}`;
    const bytes = await readLayoutDocument(this.#files, blobPath(digest), what, {
      max: MAX_MANIFEST_BYTES,
      size,
    });
    const shown = `${what} of ${this.#files.name}`;
    try {
      return parseManifest(bytes, mediaType, shown, digest);
    } catch (error) {
      // Only the digest is reported of a file that is not the manifest: behind a link it may be any file.
      verifyDigest(bytes, digest, shown);
      throw error;
    }
  }

  async #config({ config: { digest, size } }: Manifest): Promise<ImageConfig> {
    const what = `the config of ${this.#files.name}`;
    const bytes = await readLayoutDocument(this.#files, blobPath(digest), 'the config', {
      max: MAX_CONFIG_BYTES,
      size,
    });
    verifyDigest(bytes, digest, what);
    return parseConfig(bytes, what);
  }
}

function refNameOf(descriptor: Descriptor): string | undefined {
  return namesOf(descriptor)[0];
}
