import { IntegrityError } from '../errors.ts';
import { configOf, MAX_CONFIG_BYTES } from '../oci/config.ts';
import type { Image, Layer, Session } from '../oci/image.ts';
import { type JsonObject, parseJsonObject } from '../oci/json.ts';
import { historyOf } from '../oci/layers.ts';
import type { Platform } from '../oci/platform.ts';
import { Reference } from '../oci/reference.ts';
import { BlobSource } from './blob-source.ts';
import type { Query } from './endpoint.ts';
import type { Failover } from './failover.ts';
import { readDocument } from './http/body.ts';
import type { Response } from './http/exchange.ts';
import {
  imageOfTag,
  parseAncestry,
  parseImageJson,
  parseLayerSize,
  parsePayloadChecksum,
  tagNames,
} from './v1-documents.ts';
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

/** A session by version 1 of the protocol, as Docker 1.4 spoke it. */
export class Version1Session implements Session {
  readonly #reference: Reference;
  /** `library/x`, or `host[:port]/path`, for messages. */
  readonly #name: string;
  readonly #path: string;
  readonly #index: V1Index;

  /** @param path of the repository, with its name space */
  constructor(reference: Reference, path: string, index: V1Index) {
    this.#reference = reference;
    this.#name = Reference.name(reference);
    this.#path = path;
    this.#index = index;
  }

  /** The image of the tag; there is only one, for every platform. */
  async image(_: Platform, signal: AbortSignal): Promise<Image> {
    const { tag = 'latest' } = this.#reference;
    const id = imageOfTag(await this.#tags(signal), tag, this.#name);
    const ids = await this.#ancestry(id, signal);
    const all = await this.#allFacts(ids, signal);
    const top = all.at(-1)!;
    const history = all.map(({ json }) => historyOf({ json, empty: false }));
    const config = { ...configOf(top.json, `the JSON of image ${id}`), history };
    const registries = await this.#index.registries(signal);
    const layers = all.map((facts, index) => this.#layer(facts, history[index]?.createdBy, registries));
    return { id, platform: config.platform, config, layers };
  }

  async #ask<T>(query: Query<T>, signal: AbortSignal): Promise<T> {
    return (await this.#index.registries(signal)).ask(query, signal);
  }

  async #tags(signal: AbortSignal): Promise<JsonObject> {
    const subject = `the list of tags of ${this.#name}`;
    const absent = `${this.#name} does not exist`;
    const read = async (response: Response) =>
      parseJsonObject(await readDocument(response, MAX_TAGS_BYTES), subject);
    return this.#ask({ path: `repositories/${this.#path}/tags`, subject, absent, read }, signal);
  }

  async #ancestry(id: string, signal: AbortSignal): Promise<readonly string[]> {
    const subject = `the ancestry of image ${id}`;
    const read = async (response: Response) =>
      parseAncestry(await readDocument(response, MAX_ANCESTRY_BYTES), id, subject);
    return this.#ask({ path: `images/${id}/ancestry`, subject, read }, signal);
  }

  /** The JSON and headers of each image, base first; as many requests at once as connections are allowed. */
  async #allFacts(ids: readonly string[], signal: AbortSignal): Promise<readonly ImageFacts[]> {
    const abort = new AbortController();
    const both = AbortSignal.any([signal, abort.signal]);
    let bytes = 0;
    const take = (count: number) => {
      bytes += count;
      if (bytes <= MAX_JSON_BYTES) return;
      const message = `the JSON documents of ${Reference.format(this.#reference)} have more than ${MAX_JSON_BYTES} bytes`;
      throw new IntegrityError(message);
    };
    try {
      return await Promise.all(
        ids.map((id, index) => this.#facts({ id, parent: ids[index - 1] }, take, both)),
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
    const { length, ...facts } = await this.#ask({ path: `images/${id}/json`, subject, read }, signal);
    // Not within the request: it would be made again, and the others with it.
    take(length);
    return { id, ...facts };
  }

  #layer(facts: ImageFacts, createdBy: string | undefined, registries: Failover): Layer {
    const { id, json, checksum, size } = facts;
    const subject = `the layer ${id} of ${this.#name}`;
    const source = new BlobSource({ path: `images/${id}/layer`, subject, size }, registries);
    return {
      id,
      mediaType: 'application/octet-stream',
      checksum,
      size,
      info: json,
      createdBy,
      open: (range, signal) => source.open(range, signal),
    };
  }

  async *tags(signal: AbortSignal): AsyncGenerator<string, void> {
    yield* tagNames(await this.#tags(signal));
  }

  async close(): Promise<void> {
    await this.#index.close();
  }
}
