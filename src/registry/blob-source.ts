import { printable } from '../errors.ts';
import type { BlobRange, BlobResponse } from '../oci/image.ts';
import type { LayerDescription } from '../oci/layers.ts';
import { contentLength } from './http/body.ts';
import { parseContentRange } from './content-range.ts';
import type { Endpoint, Query } from './endpoint.ts';
import type { Response } from './http/exchange.ts';
import { isLoopback } from './http/loopback.ts';
import type { Mirrored } from './failover.ts';
import { TransientError } from './transient.ts';

/** An answer to a request for a part that cannot be used: the whole has to be asked for. */
const MISANSWERED = Symbol('misanswered');

/** A comparison by `If-Range` needs a strong entity tag (RFC 9110, 13.1.5). */
function isStrong(etag: string): boolean {
  return /^"[\x21\x23-\x7e\x80-\xff]*"$/.test(etag);
}

/** Headers that ask for `range`; `etag` only where this server gave it. */
export function rangeHeaders(range: BlobRange, etag: string | undefined): Record<string, string> {
  const { start, end } = range;
  if (start === 0 && end === undefined) return {};
  return {
    range: `bytes=${start}-${end === undefined ? '' : end - 1}`,
    ...(etag !== undefined && isStrong(etag) && { 'if-range': etag }),
  };
}

async function* nothing(): AsyncIterable<Uint8Array> {}

/** What an answer to a blob request holds; MISANSWERED when it is not what `range` asked for and not the whole either. */
export function readBlobResponse(
  response: Response,
  range: BlobRange,
  size: number | undefined,
): BlobResponse | typeof MISANSWERED {
  const { status, body } = response;
  const etag = response.header('etag');
  if (status === 200) {
    const ranges = /\bbytes\b/i.test(response.header('accept-ranges') ?? '');
    return { body, start: 0, size: contentLength(response), etag, ranges };
  }
  const content = parseContentRange(response.header('content-range'));
  if (status === 416) {
    response.discard();
    const complete = content?.size === range.start || (content?.size === undefined && size === range.start);
    return complete
      ? { body: nothing(), start: range.start, size: range.start, etag, ranges: true }
      : MISANSWERED;
  }
  const sound =
    content?.start === range.start &&
    (content.size === undefined || size === undefined || content.size === size) &&
    (range.etag === undefined || etag === undefined || etag === range.etag);
  if (sound) return { body, start: range.start, size: content.size, etag, ranges: true };
  response.discard();
  return MISANSWERED;
}

/** The places where one blob may be had, and what is known of each. */
export class BlobSource {
  readonly #layer: LayerDescription;
  readonly #subject: string;
  readonly #endpoints: Mirrored;
  /** Which source gave an entity tag. */
  readonly #etags = new Map<string, unknown>();
  /** Bodies that were handed out, by the range they were asked for. */
  readonly #bodies = new Map<string, Response>();
  #turn = 0;

  constructor(layer: LayerDescription, repository: string, endpoints: Mirrored) {
    this.#layer = layer;
    this.#subject = `the layer ${layer.digest} of ${repository}`;
    this.#endpoints = endpoints;
  }

  /**
   * One request for the blob or a part of it; a part that is answered wrongly is given up for the whole. When a body broke off, or
   * the same part is asked for again (then what came was wrong), the next source is asked first.
   */
  async open(range: BlobRange, signal: AbortSignal): Promise<BlobResponse> {
    const key = `${range.start}-${range.end ?? ''}`;
    if (this.#bodies.has(key) || [...this.#bodies.values()].some((response) => response.broken())) {
      this.#turn += 1;
      this.#bodies.clear();
    }
    const answer = await this.#ask(range, key, signal);
    if (answer !== MISANSWERED) return answer;
    const whole = await this.#ask({ start: 0 }, key, signal);
    if (whole !== MISANSWERED) return whole;
    throw new TransientError(`${this.#subject} is answered with parts that nobody asked for`);
  }

  async #ask(range: BlobRange, key: string, signal: AbortSignal): Promise<BlobResponse | typeof MISANSWERED> {
    const query = (endpoint: Endpoint | URL): Query => ({
      path: `blobs/${this.#layer.digest}`,
      headers: rangeHeaders(range, this.#etagFor(range.etag, endpoint)),
      also: [206, 416],
      subject: this.#subject,
    });
    const read = (response: Response, source: Endpoint | URL) => {
      const expected = { ...range, etag: this.#etagFor(range.etag, source) };
      const answer = readBlobResponse(response, expected, this.#layer.size);
      if (answer !== MISANSWERED) this.#bodies.set(key, response);
      if (answer !== MISANSWERED && answer.etag !== undefined) this.#etags.set(answer.etag, source);
      return Promise.resolve(answer);
    };
    try {
      return await this.#endpoints.ask(query, read, signal, this.#turn);
    } catch (error) {
      signal.throwIfAborted();
      for (const url of this.#addresses()) {
        const found = await this.#endpoints.registry
          .askElsewhere(url, query(url), (response) => read(response, url), signal)
          .catch(() => undefined);
        if (found) return found;
        signal.throwIfAborted();
      }
      throw error;
    }
  }

  #etagFor(etag: string | undefined, source: unknown): string | undefined {
    if (etag === undefined) return undefined;
    const giver = this.#etags.get(etag);
    return giver === undefined || giver === source ? etag : undefined;
  }

  /** The addresses that the manifest names for the blob (foreign layers), as far as they are safe to ask. */
  #addresses(): URL[] {
    return (this.#layer.urls ?? []).flatMap((text) => {
      const url = URL.parse(text);
      const safe = url?.protocol === 'https:' || (url?.protocol === 'http:' && isLoopback(url.host));
      return url && safe && printable(text) === text ? [url] : [];
    });
  }
}
