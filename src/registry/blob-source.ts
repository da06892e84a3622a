import { printable } from '../errors.ts';
import type { BlobRange, BlobResponse } from '../oci/image.ts';
import type { Endpoint, Query } from './endpoint.ts';
import type { Failover } from './failover.ts';
import { contentLength } from './http/body.ts';
import type { Response } from './http/exchange.ts';
import { isLoopback } from './http/loopback.ts';
import { TransientError } from './http/transport-error.ts';

/** What a 206 or 416 answer says it holds (RFC 9110, 14.4). */
export interface ContentRange {
  /** Undefined in a 416 answer. */
  readonly start: number | undefined;
  /** First byte that is not in it; undefined in a 416 answer. */
  readonly end: number | undefined;
  /** Of the whole, in bytes; undefined for `*`. */
  readonly size: number | undefined;
}

/**
 * Reads `bytes 10-19/100`, with `*` for an unknown size or, in a 416 answer, for no range; without the word `bytes` too, as the
 * registry of 2014 sends it. Undefined when it is missing, malformed or contradicts itself.
 */
export function parseContentRange(value: string | undefined): ContentRange | undefined {
  const match = /^\s*(?:bytes[ =:]+)?(?:(\d{1,15})-(\d{1,15})|\*)\/(\d{1,15}|\*)\s*$/i.exec(value ?? '');
  if (!match) return undefined;
  const [, first, last, total] = match;
  const size = total === '*' ? undefined : Number(total);
  if (first === undefined || last === undefined) return { start: undefined, end: undefined, size };
  const start = Number(first);
  const end = Number(last) + 1;
  if (start >= end || (size !== undefined && end > size)) return undefined;
  return { start, end, size };
}

/** A comparison by `If-Range` needs a strong entity tag (RFC 9110, 13.1.5). */
function isStrong(etag: string): boolean {
  return /^"[\x21\x23-\x7e\x80-\xff]*"$/.test(etag);
}

function rangeHeaders({ start, end }: BlobRange, etag: string | undefined): Record<string, string> {
  if (start === 0 && end === undefined) return {};
  return {
    range: `bytes=${start}-${end === undefined ? '' : end - 1}`,
    ...(etag !== undefined && isStrong(etag) && { 'if-range': etag }),
  };
}

async function* nothing(): AsyncIterable<Uint8Array> {}

/** An answer to a range request that cannot be used: the whole blob has to be requested. */
const WRONG_RANGE = Symbol('wrong range');

/** What an answer to a blob request holds; `size` of the blob, where it is known. */
function readBlobResponse(
  response: Response,
  range: BlobRange,
  size: number | undefined,
): BlobResponse | typeof WRONG_RANGE {
  const { status, body } = response;
  const etag = response.header('etag');
  if (status === 200) {
    const ranges = /\bbytes\b/i.test(response.header('accept-ranges') ?? '');
    return { body, start: 0, size: contentLength(response), etag, ranges };
  }
  const content = parseContentRange(response.header('content-range'));
  if (status === 416) {
    response.discard();
    // The registry of 2014 answers so for a layer of no bytes at all.
    const empty = range.start === 0 && (size ?? 0) === 0;
    const complete = content?.size === range.start || (content?.size === undefined && size === range.start);
    return empty || complete
      ? { body: nothing(), start: range.start, size: range.start, etag, ranges: !empty }
      : WRONG_RANGE;
  }
  const sound =
    content?.start === range.start &&
    (content.size === undefined || size === undefined || content.size === size) &&
    (range.etag === undefined || etag === undefined || etag === range.etag);
  if (sound) return { body, start: range.start, size: content.size, etag, ranges: true };
  response.discard();
  return WRONG_RANGE;
}

/** A blob to request, by either version of the protocol. */
export interface BlobQuery {
  /** Relative to the base of an endpoint. */
  readonly path: string;
  /** For errors: `the layer sha256:… of library/alpine`. */
  readonly subject: string;
  /** In bytes, where it is known. */
  readonly size: number | undefined;
  /** Addresses that the manifest names (foreign layers). */
  readonly urls?: readonly string[] | undefined;
}

/** The endpoints that have one blob, and what is known of each. */
export class BlobSource {
  readonly #blob: BlobQuery;
  readonly #endpoints: Failover;
  /** Which endpoint or address gave an entity tag. */
  readonly #etags = new Map<string, unknown>();
  /** Bodies that were handed out, by the range that was requested. */
  readonly #bodies = new Map<string, Response>();
  #turn = 0;

  constructor(blob: BlobQuery, endpoints: Failover) {
    this.#blob = blob;
    this.#endpoints = endpoints;
  }

  /**
   * One request for the blob or a range of it; after a wrong range the whole is requested. When a body broke off, or the same range is
   * requested again (its bytes were wrong), the next endpoint comes first.
   */
  async open(range: BlobRange, signal: AbortSignal): Promise<BlobResponse> {
    const key = `${range.start}-${range.end ?? ''}`;
    if (this.#bodies.has(key) || [...this.#bodies.values()].some((response) => response.broken())) {
      this.#turn += 1;
      this.#bodies.clear();
    }
    for (const asked of [range, { start: 0 }]) {
      const answer = await this.#ask(asked, key, signal);
      if (answer !== WRONG_RANGE) return answer;
    }
    throw new TransientError(
      `cannot read ${this.#blob.subject}: the answer is a range that was not requested`,
    );
  }

  async #ask(range: BlobRange, key: string, signal: AbortSignal): Promise<BlobResponse | typeof WRONG_RANGE> {
    const { path, subject, size } = this.#blob;
    const query = (giver: Endpoint | URL): Query => ({
      path,
      headers: rangeHeaders(range, this.#etagFor(range.etag, giver)),
      also: [206, 416],
      subject,
    });
    const read = async (
      response: Response,
      giver: Endpoint | URL,
    ): Promise<BlobResponse | typeof WRONG_RANGE> => {
      const expected = { ...range, etag: this.#etagFor(range.etag, giver) };
      const answer = readBlobResponse(response, expected, size);
      if (answer === WRONG_RANGE) return answer;
      this.#bodies.set(key, response);
      // Another server's entity tag says nothing about a change.
      if (expected.etag !== range.etag) return { ...answer, etag: range.etag };
      if (answer.etag !== undefined) this.#etags.set(answer.etag, giver);
      return answer;
    };
    try {
      return await this.#endpoints.ask(query, read, signal, this.#turn);
    } catch (error) {
      signal.throwIfAborted();
      for (const url of this.#addresses()) {
        const found = await this.#endpoints.endpoints
          .at(-1)!
          .askElsewhere(url, query(url), (response) => read(response, url), signal)
          .catch(() => undefined);
        if (found) return found;
        signal.throwIfAborted();
      }
      throw error;
    }
  }

  /** An entity tag is good for the server that gave it. */
  #etagFor(etag: string | undefined, giver: unknown): string | undefined {
    if (etag === undefined) return undefined;
    const known = this.#etags.get(etag);
    return known === undefined || known === giver ? etag : undefined;
  }

  /** The addresses that are safe to use. */
  #addresses(): URL[] {
    return (this.#blob.urls ?? []).flatMap((text) => {
      const url = URL.parse(text);
      const safe = url?.protocol === 'https:' || (url?.protocol === 'http:' && isLoopback(url.host));
      return url && safe && printable(text) === text ? [url] : [];
    });
  }
}
