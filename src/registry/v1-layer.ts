import type { BlobRange, BlobResponse } from '../oci/image.ts';
import { rangeHeaders, readBlobResponse } from './blob-source.ts';
import type { Response } from './http/exchange.ts';
import { TransientError } from './transient.ts';
import type { V1Registries } from './v1-registries.ts';
import type { V1Server } from './v1-server.ts';

/** What is known of a layer before it is fetched. */
interface LayerFacts {
  readonly id: string;
  /** Of the repository. */
  readonly name: string;
  /** In bytes, as the registry says. */
  readonly size: number | undefined;
}

async function* nothing(): AsyncIterable<Uint8Array> {}

/** The layer of one image, at every registry that the index names. */
export class V1Layer {
  readonly #facts: LayerFacts;
  readonly #registries: V1Registries;
  readonly #subject: string;
  /** Which registry gave an entity tag. */
  readonly #etags = new Map<string, V1Server>();
  #opened = 0;

  constructor(facts: LayerFacts, registries: V1Registries) {
    this.#facts = facts;
    this.#registries = registries;
    this.#subject = `the layer ${facts.id} of ${facts.name}`;
  }

  /**
   * One request for the layer or a part of it; a part that is answered wrongly is given up for the whole. Opening it again means that
   * the last body was no good: then the next registry is asked first.
   */
  async open(range: BlobRange, signal: AbortSignal): Promise<BlobResponse> {
    const turn = this.#opened;
    this.#opened += 1;
    const answer = (await this.#ask(range, signal, turn)) ?? (await this.#ask({ start: 0 }, signal, turn));
    if (answer) return answer;
    throw new TransientError(`${this.#subject} is answered with parts that nobody asked for`);
  }

  /** Undefined: the answer is of no use. */
  async #ask(range: BlobRange, signal: AbortSignal, turn: number): Promise<BlobResponse | undefined> {
    const query = (server: V1Server) => ({
      path: `images/${this.#facts.id}/layer`,
      headers: rangeHeaders(range, this.#isFrom(server, range.etag) ? range.etag : undefined),
      also: [206, 416],
      subject: this.#subject,
    });
    const read = async (response: Response, server: V1Server) =>
      Promise.resolve(this.#read(response, server, range));
    return this.#registries.ask(query, read, signal, turn);
  }

  #isFrom(server: V1Server, etag: string | undefined): boolean {
    return etag !== undefined && this.#etags.get(etag) === server;
  }

  #read(response: Response, server: V1Server, range: BlobRange): BlobResponse | undefined {
    const { size } = this.#facts;
    // The registry of 2014 answers so for a layer of no bytes at all.
    if (response.status === 416 && range.start === 0 && (size ?? 0) === 0) {
      response.discard();
      return { body: nothing(), start: 0, size: 0, ranges: false };
    }
    const comparable = range.etag === undefined || this.#isFrom(server, range.etag);
    const answer = readBlobResponse(response, comparable ? range : { ...range, etag: undefined }, size);
    if (typeof answer === 'symbol') return undefined;
    // Another registry's entity tag says nothing about a change.
    if (!comparable) return { ...answer, etag: range.etag };
    if (answer.etag !== undefined) this.#etags.set(answer.etag, server);
    return answer;
  }
}
