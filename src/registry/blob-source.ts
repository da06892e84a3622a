import { isLoopback } from '../oci/reference.ts';
import { NetworkError, printable } from '../errors.ts';
import type { BlobRange, BlobResponse, RemoteLayer } from '../oci/image.ts';
import type { Endpoint, Failover, Query } from './endpoint.ts';
import { contentLength, webPage } from './http/answer.ts';
import type { Response } from './http/exchange.ts';

/**
 * Parses a `Content-Range` header: `bytes 10-19/100`, with `*` for an unknown size, or instead of the range
 * in a 416 answer. The registry of 2014 omits the word `bytes`. `end` is exclusive.
 *
 * @returns undefined if the header is missing, malformed or contradicts itself; members that it does not give
 * are undefined
 */
export function parseContentRange(
  value: string | undefined,
): Readonly<Record<'start' | 'end' | 'size', number | undefined>> | undefined {
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

/** True for a strong entity tag, which `If-Range` needs (RFC 9110, 13.1.5). */
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

async function* emptyBody(): AsyncIterable<Uint8Array> {}

/**
 * Interprets the answer to a request for a blob.
 *
 * @throws NetworkError for a web page, and for another range than the requested one
 */
function readBlobResponse(response: Response, range: BlobRange, { size, subject }: BlobQuery): BlobResponse {
  const { status, body } = response;
  const etag = response.header('etag');
  if (status === 200) {
    const isPage = /^\s*text\/html\b/i.test(response.header('content-type') ?? '');
    if (isPage && size !== undefined && contentLength(response) !== size) {
      response.discard();
      throw webPage(response);
    }
    const ranges = /\bbytes\b/i.test(response.header('accept-ranges') ?? '');
    return { body, start: 0, size: contentLength(response), etag, ranges };
  }
  const content = parseContentRange(response.header('content-range'));
  const { start } = range;
  const asRequested =
    status === 206 &&
    content?.start === start &&
    (content.size === undefined || size === undefined || content.size === size) &&
    (range.etag === undefined || etag === undefined || etag === range.etag);
  if (asRequested) return { body, start, size: content.size, etag, ranges: true };
  response.discard();
  // The registry of 2014 answers 416 for an empty layer.
  const empty = start === 0 && (size ?? 0) === 0;
  const atEnd = (content?.size ?? size) === start;
  if (status === 416 && (empty || atEnd))
    return { body: emptyBody(), start, size: start, etag, ranges: !empty };
  throw new NetworkError(
    `cannot read ${subject}: ${response.url.host} sent another range than the requested one`,
    { code: 'OTHER_RANGE', hint: 'report it to the operator of the registry or of the proxy before it' },
  );
}

/** A blob to request, by version 1 or 2 of the protocol. */
export interface BlobQuery {
  /** Relative to the base of an endpoint. */
  readonly path: string;
  /** For errors: `the layer sha256:… of library/alpine`. */
  readonly subject: string;
  /** Size in bytes, if known. */
  readonly size: number | undefined;
  /** Addresses that the manifest names (foreign layers). */
  readonly urls?: readonly string[] | undefined;
}

/** Reads one blob from the endpoints of its repository. */
export class BlobSource {
  readonly #blob: BlobQuery;
  readonly #endpoints: Failover;
  /** The addresses in the manifest, as endpoints. */
  readonly #others: readonly Endpoint[];
  /** The endpoint that sent each entity tag. */
  readonly #etags = new Map<string, Endpoint>();
  /** The last bodies with their endpoints, by the requested range. */
  readonly #bodies = new Map<string, { readonly response: Response; readonly endpoint: Endpoint }>();
  /** The endpoints whose bodies broke or were wrong, the latest last. */
  #bad: readonly Endpoint[] = [];
  /** True if the range of the last bad body was requested again: its bytes were wrong, or none came. */
  #isWrong = false;

  constructor(blob: BlobQuery, endpoints: Failover) {
    this.#blob = blob;
    this.#endpoints = endpoints;
    const { last } = endpoints;
    this.#others = last ? (blob.urls ?? []).filter(isSafe).map((url) => last.elsewhere(new URL(url))) : [];
  }

  /**
   * Requests the blob or a range of it. If no endpoint sends the rest of the blob (a range without an end),
   * requests the whole blob. Endpoints are asked last if their body broke, or if the same range is requested
   * again (its bytes were wrong).
   */
  readonly open: RemoteLayer['open'] = async (range, signal) => {
    const key = `${range.start}-${range.end ?? ''}`;
    this.#noteBad(key);
    const rest = range.start > 0 && range.end === undefined;
    return this.#ask(range, key, signal).catch((error: unknown) => {
      signal.throwIfAborted();
      if (!rest || !(error instanceof NetworkError)) throw error;
      return this.#ask({ start: 0 }, key, signal);
    });
  };

  /** Remembers the endpoints of bodies that broke, or that were sent for the same range before. */
  #noteBad(key: string): void {
    const same = this.#bodies.get(key);
    const bad = same ? [same] : [...this.#bodies.values()].filter(({ response }) => response.broken());
    if (bad.length === 0) return;
    const endpoints = new Set(bad.map(({ endpoint }) => endpoint));
    this.#bad = [...this.#bad.filter((each) => !endpoints.has(each)), ...endpoints];
    this.#isWrong = same !== undefined;
    this.#bodies.clear();
  }

  async #ask(range: BlobRange, key: string, signal: AbortSignal): Promise<BlobResponse> {
    const { path, subject } = this.#blob;
    const query = (endpoint: Endpoint): Query<BlobResponse> => {
      const etag = this.#etagFor(range.etag, endpoint);
      const read = async (response: Response) => {
        const answer = readBlobResponse(response, { ...range, etag }, this.#blob);
        this.#bodies.set(key, { response, endpoint });
        // The entity tag of another server does not show a change.
        if (etag !== range.etag) return { ...answer, etag: range.etag };
        if (answer.etag !== undefined) this.#etags.set(answer.etag, endpoint);
        return answer;
      };
      const address = this.#others.includes(endpoint) ? '' : path;
      return { path: address, headers: rangeHeaders(range, etag), also: [206, 416], subject, read, signal };
    };
    return await this.#endpoints.first(
      { subject, signal },
      (endpoint, retries) => endpoint.ask(query(endpoint), retries),
      { later: this.#bad, isWrong: this.#isWrong, foreign: this.#others },
    );
  }

  /** Returns the entity tag if it is from this endpoint, or its endpoint is unknown. */
  #etagFor(etag: string | undefined, endpoint: Endpoint): string | undefined {
    if (etag === undefined) return undefined;
    return (this.#etags.get(etag) ?? endpoint) === endpoint ? etag : undefined;
  }
}

/** True if an address in a manifest may be used: https, or http on this machine. */
function isSafe(text: string): boolean {
  const url = URL.parse(text);
  const safe = url?.protocol === 'https:' || (url?.protocol === 'http:' && isLoopback(url.host));
  return safe && printable(text) === text;
}
