import { IntegrityError, NotFoundError, printable } from '../errors.ts';
import { configOf, MAX_CONFIG_BYTES } from '../oci/config.ts';
import { Digest } from '../oci/digest.ts';
import { historyOf, type Image, type Layer, type Session, MAX_LAYERS } from '../oci/image.ts';
import { type JsonObject, parseJson, parseJsonObject, textOf } from '../oci/json.ts';
import { isTag, Reference } from '../oci/reference.ts';
import { BlobSource } from './blob-source.ts';
import type { Failover, Query } from './endpoint.ts';
import { readDocument } from './http/answer.ts';
import type { Response } from './http/exchange.ts';
import type { V1Index } from './v1-index.ts';

const MAX_TAGS_BYTES = 16 * 1024 * 1024;
const MAX_ANCESTRY_BYTES = 1024 * 1024;
/** Of all JSON documents of one image together. */
const MAX_JSON_BYTES = 32 * 1024 * 1024;

/** From the answer to `images/ID/json`. */
interface ImageFacts {
  readonly id: string;
  readonly json: JsonObject;
  readonly checksum: Layer['checksum'];
  readonly size: number | undefined;
}

/** A session by version 1 of the protocol, by the rules of docker-registry (Python) and Docker 1.4. */
export class Version1Session implements Session {
  readonly #reference: Reference;
  /** `library/x`, or `host[:port]/path`, for messages. */
  readonly #name: string;
  readonly #index: V1Index;

  constructor(reference: Reference, index: V1Index) {
    this.#reference = reference;
    this.#name = Reference.name(reference);
    this.#index = index;
  }

  /** The image of the tag; there is only one, for every platform. */
  async image(): Promise<Image> {
    const { tag = 'latest' } = this.#reference;
    const id = imageOfTag(await this.#tags(), tag, this.#name);
    const ids = await this.#ancestry(id);
    const all = await this.#allFacts(ids);
    const top = all.at(-1)!;
    const history = all.map(({ json }) => historyOf({ json, empty: false }));
    const config = { ...configOf(top.json, `the JSON of image ${id}`), history };
    const registries = await this.#index.registries();
    const layers = all.map((facts, index) => this.#layer(facts, history[index]?.createdBy, registries));
    return { id, platform: config.platform, config, layers };
  }

  async #ask<T>(query: Query<T>): Promise<T> {
    return (await this.#index.registries()).ask(query);
  }

  async #tags(): Promise<JsonObject> {
    const subject = `the list of tags of ${this.#name}`;
    const absent = `${this.#name} does not exist`;
    const read = async (response: Response) =>
      parseJsonObject(await readDocument(response, MAX_TAGS_BYTES), subject);
    return this.#ask({ path: `repositories/${this.#index.repository}/tags`, subject, absent, read });
  }

  async #ancestry(id: string): Promise<readonly string[]> {
    const subject = `the ancestry of image ${id}`;
    const read = async (response: Response) =>
      parseAncestry(await readDocument(response, MAX_ANCESTRY_BYTES), id, subject);
    return this.#ask({ path: `images/${id}/ancestry`, subject, read });
  }

  /** The JSON and headers of each image, base first; as many requests at once as connections are allowed. */
  async #allFacts(ids: readonly string[]): Promise<readonly ImageFacts[]> {
    const abort = new AbortController();
    const signal = AbortSignal.any([this.#index.signal, abort.signal]);
    let bytes = 0;
    const take = (count: number) => {
      bytes += count;
      if (bytes <= MAX_JSON_BYTES) return;
      const message = `the JSON documents of ${Reference.format(this.#reference)} have more than ${MAX_JSON_BYTES} bytes`;
      throw new IntegrityError(message);
    };
    try {
      return await Promise.all(
        ids.map((id, index) => this.#facts({ id, parent: ids[index - 1] }, take, signal)),
      );
    } finally {
      abort.abort(new Error('another request failed'));
    }
  }

  async #facts(
    image: { readonly id: string; readonly parent: string | undefined },
    take: (bytes: number) => void,
    signal: AbortSignal,
  ): Promise<ImageFacts> {
    const { id } = image;
    const subject = `the JSON of image ${id}`;
    const read = async (response: Response) => {
      const body = await readDocument(response, MAX_CONFIG_BYTES);
      const digest = parsePayloadChecksum(response.header('x-docker-checksum-payload'));
      return {
        length: body.length,
        json: parseImageJson(body, image, subject),
        checksum: digest && { digest, prefix: Buffer.concat([body, Buffer.from('\n')]) },
        size: parseLayerSize(response.header('x-docker-size'), `layer ${id}`),
      };
    };
    const { length, ...facts } = await this.#ask({ path: `images/${id}/json`, subject, read, signal });
    // Not within the request: it would be made again, and the others with it.
    take(length);
    return { id, ...facts };
  }

  #layer(facts: ImageFacts, createdBy: string | undefined, registries: Failover): Layer {
    const { id, json, checksum, size } = facts;
    const subject = `the layer ${id} of ${this.#name}`;
    return {
      id,
      mediaType: 'application/octet-stream',
      checksum,
      size,
      info: json,
      createdBy,
      open: new BlobSource({ path: `images/${id}/layer`, subject, size }, registries).open,
    };
  }

  async *tags(): AsyncGenerator<string, void> {
    yield* tagNames(await this.#tags());
  }

  async close(): Promise<void> {
    await this.#index.close();
  }
}

/** Tags that an error message lists. */
const LISTED_TAGS = 8;

const ID_PATTERN = /^(?:[0-9a-f]{64}|[0-9a-f]{16})$/;

/** The tags of a list (an object from tag to image id), sorted; invalid names are left out. */
export function tagNames(tags: JsonObject): readonly string[] {
  return Object.keys(tags).filter(isTag).toSorted();
}

/**
 * The id of the image that `tag` points to.
 *
 * @throws NotFoundError that lists some tags there are, IntegrityError
 */
export function imageOfTag(tags: JsonObject, tag: string, name: string): string {
  if (!Object.hasOwn(tags, tag)) {
    const names = tagNames(tags);
    const more = names.length > LISTED_TAGS ? ', …' : '';
    throw new NotFoundError(`${name} has no tag ${printable(tag)}`, {
      code: 'TAG_NOT_FOUND',
      hint:
        names.length === 0
          ? 'choose another repository: this one has no tags'
          : `choose one of its tags: ${names.slice(0, LISTED_TAGS).join(', ')}${more}`,
    });
  }
  return imageId(tags[tag], `the image that ${name}:${printable(tag)} points to`);
}

/**
 * An image id: 64 hex digits, in very old images 16.
 *
 * @throws IntegrityError that names `what`
 */
function imageId(value: unknown, what: string): string {
  if (typeof value === 'string' && ID_PATTERN.test(value)) return value;
  const found =
    typeof value === 'string' ? `"${printable(value, 80)}", not 64 or 16 hex digits` : 'not a string';
  throw new IntegrityError(`the id of ${what} is ${found}`);
}

/**
 * Reads the ancestry of image `id`; the ids come out base first, `id` last.
 *
 * @throws IntegrityError
 */
export function parseAncestry(body: Uint8Array, id: string, what: string): readonly string[] {
  const list = parseJson(body, what);
  if (!Array.isArray(list)) throw new IntegrityError(`${what} is not a JSON array`);
  if (list.length === 0) throw new IntegrityError(`${what} is empty: an image has one layer at least`);
  if (list.length > MAX_LAYERS) {
    throw new IntegrityError(`${what} lists ${list.length} layers, ${MAX_LAYERS} are allowed`);
  }
  const ids = list.map((value: unknown, place) => imageId(value, `layer ${list.length - place} in ${what}`));
  if (ids[0] !== id) throw new IntegrityError(`${what} begins with another image, ${ids[0]}`);
  const seen = new Set<string>();
  for (const each of ids) {
    if (seen.has(each)) throw new IntegrityError(`${what} names ${each} more than once`);
    seen.add(each);
  }
  return ids.toReversed();
}

/**
 * Reads the JSON of image `id` on top of `parent`.
 *
 * @throws IntegrityError, also where it names other images than these
 */
export function parseImageJson(
  body: Uint8Array,
  { id, parent }: { readonly id: string; readonly parent: string | undefined },
  what: string,
): JsonObject {
  const json = parseJsonObject(body, what);
  const said = textOf(json['id']);
  if (said !== undefined && said !== id) {
    throw new IntegrityError(`${what} belongs to another image, ${printable(said, 80)}`);
  }
  const saidParent = textOf(json['parent']);
  if (saidParent !== undefined && saidParent !== parent) {
    const expected = parent === undefined ? 'it is the base' : `it should be ${parent}`;
    throw new IntegrityError(
      `${what} names the parent ${printable(saidParent, 80)}, but by the ancestry ${expected}`,
    );
  }
  return json;
}

/**
 * The sha256 in an `X-Docker-Checksum-Payload` header: over the image's JSON as sent, a newline, and the layer as sent. The server of
 * 2014 keeps a list, so the header may be a list as text, in the syntax of JSON or Python, with a tarsum in it. Undefined without a sha256,
 * or with more than one.
 */
export function parsePayloadChecksum(header: string | undefined): Digest | undefined {
  const found = [...(header ?? '').matchAll(/(?<![\w.+-])sha256:([0-9a-f]{64})(?![0-9a-f])/gi)];
  const digests = new Set(found.map((match) => match[1]!.toLowerCase()));
  const [hex] = digests;
  return digests.size === 1 ? Digest.parse(`sha256:${hex}`) : undefined;
}

/**
 * The size in an `X-Docker-Size` header, in bytes; undefined when it is missing or -1.
 *
 * @throws IntegrityError
 */
export function parseLayerSize(header: string | undefined, what: string): number | undefined {
  const text = header?.trim() ?? '';
  if (text === '' || text === '-1') return undefined;
  if (/^\d{1,15}$/.test(text)) return Number(text);
  throw new IntegrityError(`the size of ${what} is "${printable(text, 40)}", which is not a number of bytes`);
}
