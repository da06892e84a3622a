import { IntegrityError } from '../errors.ts';
import { configOf, MAX_CONFIG_BYTES } from '../oci/config.ts';
import type { Image, Layer, Session } from '../oci/image.ts';
import type { JsonObject } from '../oci/json.ts';
import { historyOf } from '../oci/layers.ts';
import type { Platform } from '../oci/platform.ts';
import { Reference } from '../oci/reference.ts';
import { readAtMost } from './http/body.ts';
import type { Timeouts } from './registry-options.ts';
import {
  imageOfTag,
  parseAncestry,
  parseImageJson,
  parseLayerSize,
  parsePayloadChecksum,
  parseTags,
  tagNames,
} from './v1-documents.ts';
import { V1Layer } from './v1-layer.ts';
import type { V1Registries } from './v1-registries.ts';

const MAX_TAGS_BYTES = 16 * 1024 * 1024;
const MAX_ANCESTRY_BYTES = 1024 * 1024;
/** Of all JSON documents of one image together. */
const MAX_JSON_BYTES = 32 * 1024 * 1024;

/** What `images/ID/json` says. */
interface ImageFacts {
  readonly id: string;
  readonly json: JsonObject;
  readonly checksum: Layer['checksum'];
  readonly size: number | undefined;
}

/** Registries for one repository, found on first use. */
export interface V1Repository {
  /** `library/x`, or `host[:port]/path`: for people. */
  readonly name: string;
  /** With its name space. */
  readonly path: string;
  registries(signal: AbortSignal): Promise<V1Registries>;
  close(): Promise<void>;
}

/** A conversation by version 1 of the protocol, as Docker 1.4 spoke it. */
export class Version1Session implements Session {
  readonly #reference: Reference;
  readonly #repository: V1Repository;
  readonly #timeouts: Timeouts;

  constructor(reference: Reference, repository: V1Repository, timeouts: Timeouts) {
    this.#reference = reference;
    this.#repository = repository;
    this.#timeouts = timeouts;
  }

  /** The image of the tag; there is only one, whatever the platform. */
  async image(_: Platform, signal: AbortSignal): Promise<Image> {
    const { tag = 'latest' } = this.#reference;
    const { name } = this.#repository;
    const registries = await this.#repository.registries(signal);
    const id = imageOfTag(await this.#tags(registries, signal), tag, name);
    const ids = await this.#ancestry(registries, id, signal);
    const all = await this.#allFacts(registries, ids, signal);
    const top = all.at(-1)!;
    const history = all.map(({ json }) => historyOf({ json, empty: false }));
    const config = { ...configOf(top.json, `the JSON of image ${id}`), history };
    const layers = all.map((facts, index) => this.#layer(facts, history[index]?.createdBy, registries));
    return { id, platform: config.platform, config, layers };
  }

  async #tags(registries: V1Registries, signal: AbortSignal): Promise<JsonObject> {
    const { name, path } = this.#repository;
    const subject = `the list of tags of ${name}`;
    return registries.ask(
      { path: `repositories/${path}/tags`, subject },
      async (response) =>
        parseTags(await readAtMost(response, MAX_TAGS_BYTES, this.#timeouts, signal), subject),
      signal,
    );
  }

  async #ancestry(registries: V1Registries, id: string, signal: AbortSignal): Promise<readonly string[]> {
    const subject = `the ancestry of image ${id}`;
    return registries.ask(
      { path: `images/${id}/ancestry`, subject },
      async (response) =>
        parseAncestry(await readAtMost(response, MAX_ANCESTRY_BYTES, this.#timeouts, signal), id, subject),
      signal,
    );
  }

  /** What the registry says of each image, base first; as many at once as connections are allowed. */
  async #allFacts(
    registries: V1Registries,
    ids: readonly string[],
    signal: AbortSignal,
  ): Promise<readonly ImageFacts[]> {
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
        ids.map((id, index) => this.#facts(registries, { id, parent: ids[index - 1] }, take, both)),
      );
    } finally {
      abort.abort(new Error('another request failed'));
    }
  }

  async #facts(
    registries: V1Registries,
    place: { readonly id: string; readonly parent: string | undefined },
    take: (bytes: number) => void,
    signal: AbortSignal,
  ): Promise<ImageFacts> {
    const { id } = place;
    const subject = `the JSON of image ${id}`;
    return registries.ask(
      { path: `images/${id}/json`, subject },
      async (response) => {
        const body = await readAtMost(response, MAX_CONFIG_BYTES, this.#timeouts, signal);
        take(body.length);
        const digest = parsePayloadChecksum(response.header('x-docker-checksum-payload'));
        return {
          id,
          json: parseImageJson(body, place, subject),
          checksum: digest && { digest, prefix: Buffer.concat([body, Buffer.from('\n')]) },
          size: parseLayerSize(response.header('x-docker-size'), `layer ${id}`),
        };
      },
      signal,
    );
  }

  #layer(facts: ImageFacts, createdBy: string | undefined, registries: V1Registries): Layer {
    const { id, json, checksum, size } = facts;
    const layer = new V1Layer({ id, name: this.#repository.name, size }, registries);
    return {
      id,
      mediaType: 'application/octet-stream',
      checksum,
      size,
      info: json,
      createdBy,
      open: (range, signal) => layer.open(range, signal),
    };
  }

  async *tags(signal: AbortSignal): AsyncGenerator<string, void> {
    yield* tagNames(await this.#tags(await this.#repository.registries(signal), signal));
  }

  async close(): Promise<void> {
    await this.#repository.close();
  }
}
