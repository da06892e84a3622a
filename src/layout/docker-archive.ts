import { createHash } from 'node:crypto';
import { IntegrityError } from '../errors.ts';
import { type Compression, compressionOf, MAGIC_LENGTH } from '../oci/compression.ts';
import { type ImageConfig, MAX_CONFIG_BYTES, parseConfig } from '../oci/config.ts';
import type { Descriptor } from '../oci/manifest.ts';
import { type DiffID, Digest, digestOf, verifyDigest } from '../oci/digest.ts';
import { describeImage, type Image, type LocalLayer, type Session } from '../oci/image.ts';
import { isObject, parseJson, textOf, textsOf } from '../oci/json.ts';
import { MediaType } from '../oci/media-types.ts';
import { Reference } from '../oci/reference.ts';
import {
  findFile,
  openLayoutFile,
  readLayoutDocument,
  selectImage,
  type LayoutFile,
  type LayoutFiles,
} from './layout-files.ts';

/**
 * Reads images in an archive of `docker save`, old or new, or of another tool that writes manifest.json. The
 * digest of a layer that is a plain tar is its diffID. A compressed layer is hashed when the image is opened,
 * unless its path has the digest.
 */
export class DockerArchive implements Session<LocalLayer> {
  readonly #files: LayoutFiles;
  readonly #wanted: string | undefined;

  /** @param wanted a reference, or `@N` for the N-th image of manifest.json */
  constructor(files: LayoutFiles, wanted: string | undefined) {
    this.#files = files;
    this.#wanted = wanted;
  }

  /** Opens the image. The archive has one image per name; its config has the platform. */
  async image(): Promise<Image<LocalLayer>> {
    const [listed] = selectImage(await this.#listing(), this.#wanted, this.#files.name, {
      isNamed,
      nameOf: ({ names }) => names[0],
      groupOf: (image) => image,
    });
    const { layers: paths } = listed!;
    const { config, descriptor } = await this.#config(listed!);
    const { diffIDs } = config;
    if (diffIDs.length !== paths.length) {
      throw new IntegrityError(
        `manifest.json of ${this.#files.name} lists ${paths.length} layers, ` +
          `but the config has ${diffIDs.length} diff_ids`,
      );
    }
    const layers: Descriptor[] = [];
    for (const [place, path] of paths.entries()) {
      layers.push(await this.#layer(path, diffIDs[place]!));
    }
    const manifest = {
      kind: 'manifest',
      mediaType: MediaType.dockerManifest,
      config: descriptor,
      layers,
    } as const;
    const description = describeImage(manifest, config, this.#files.name);
    return {
      ...description,
      layers: description.layers.map((layer, place) => ({
        ...layer,
        openLocal: openLayoutFile(this.#files, paths[place]!, layer.size),
      })),
    };
  }

  async *tags(): AsyncIterable<string> {
    for (const { names } of await this.#listing()) yield* names;
  }

  attachments(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  close(): Promise<void> {
    return this.#files.close();
  }

  async #listing(): Promise<readonly ListedImage[]> {
    const bytes = await readLayoutDocument(this.#files, 'manifest.json', 'manifest.json', {
      max: MAX_LISTING_BYTES,
    });
    return parseListing(bytes, `manifest.json of ${this.#files.name}`);
  }

  async #config({ config: path }: ListedImage): Promise<{ config: ImageConfig; descriptor: Descriptor }> {
    const what = `the config of ${this.#files.name}`;
    const bytes = await readLayoutDocument(this.#files, path, 'the config', { max: MAX_CONFIG_BYTES });
    const named = /^(?:blobs\/sha256\/|sha256:)?([0-9a-f]{64})(?:\.json)?$/.exec(path)?.[1];
    if (named !== undefined) verifyDigest(bytes, Digest.parse(`sha256:${named}`), what);
    return {
      config: parseConfig(bytes, what),
      descriptor: { mediaType: MediaType.dockerConfig, digest: digestOf(bytes), size: bytes.length },
    };
  }

  async #layer(path: string, diffID: DiffID): Promise<Descriptor> {
    const file = await findFile(this.#files, path, 'a layer');
    const { size } = file;
    const { signal } = this.#files;
    if ((await compressionOfFile(file, signal)) === 'none') {
      return { mediaType: MediaType.dockerLayer, digest: Digest.parse(diffID), size };
    }
    const blob = /^blobs\/(sha256|sha512)\/([0-9a-f]+)$/.exec(path);
    const digest = blob === null ? await digestOfFile(file, signal) : Digest.parse(`${blob[1]}:${blob[2]}`);
    return { mediaType: MediaType.dockerLayerGzip, digest, size };
  }
}

async function compressionOfFile(file: LayoutFile, signal: AbortSignal): Promise<Compression> {
  for await (const start of file.read(0, Math.min(MAGIC_LENGTH, file.size), signal))
    return compressionOf(start);
  return 'none';
}

async function digestOfFile(file: LayoutFile, signal: AbortSignal): Promise<Digest> {
  const hash = createHash('sha256');
  for await (const chunk of file.read(0, file.size, signal)) hash.update(chunk);
  return Digest.parse(`sha256:${hash.digest('hex')}`);
}

/** Limit on manifest.json; thousands of images take less. */
const MAX_LISTING_BYTES = 16 * 1024 * 1024;

/** An image in manifest.json: paths in the archive, and its names. */
interface ListedImage {
  readonly config: string;
  /** Base layer first. */
  readonly layers: readonly string[];
  /** `name:tag`, as the user of docker typed them. */
  readonly names: readonly string[];
}

/**
 * Parses manifest.json of `docker save` (moby, image/tarexport).
 *
 * @throws IntegrityError
 */
function parseListing(bytes: Uint8Array, what: string): readonly ListedImage[] {
  const list = parseJson(bytes, what);
  if (!Array.isArray(list)) throw new IntegrityError(`${what} is not a list of images`);
  return list.map((entry: unknown, place) => {
    const config = isObject(entry) ? textOf(entry['Config']) : undefined;
    const layers = isObject(entry) ? (entry['Layers'] ?? []) : undefined;
    if (!isObject(entry) || config === undefined || !Array.isArray(layers)) {
      throw new IntegrityError(`image ${place} in ${what} lacks its config or its layers`);
    }
    const paths = textsOf(layers) ?? [];
    if (paths.length !== layers.length) {
      throw new IntegrityError(`a layer of image ${place} in ${what} is not a path`);
    }
    return { config, layers: paths, names: textsOf(entry['RepoTags']) ?? [] };
  });
}

/** True if the image has that name. Names are normalised first, as in skopeo. */
function isNamed({ names }: ListedImage, wanted: string): boolean {
  const name = normalised(wanted);
  return names.some((text) => normalised(text) === name);
}

function normalised(text: string): string {
  try {
    return Reference.format(Reference.parse(text));
  } catch {
    return text;
  }
}
