/**
 * Reads answers of registries: small documents and headers, and makes errors of answers that are failures.
 */
import { promisify } from 'node:util';
import { brotliDecompress, gunzip, inflate, zstdDecompress } from 'node:zlib';
import {
  type DlrootfsError,
  LOG_IN,
  NetworkError,
  NotFoundError,
  printable,
  RateLimitError,
  TransientError,
  UnauthorizedError,
} from '../../errors.ts';
import { isObject, jsonOf, textOf } from '../../oci/json.ts';
import { hasCode } from '../../sys/os-error.ts';
import type { Response } from './exchange.ts';

/** Limit on the body of an error. */
const MAX_ERROR_BYTES = 65_536;
/** Limits on one list of tags: some registries send all in one. */
export const MAX_TAGS_BYTES = 16 * 1024 * 1024;
export const MAX_TAGS = 1_000_000;

/** Milliseconds to drain a body: a new connection takes less time than a slower body. */
const DRAIN_TIMEOUT = 1000;
/** Initial size for a body of unknown length. */
const FIRST_BUFFER_BYTES = 16_384;

const DECODERS = new Map([
  ['gzip', promisify<Uint8Array, object, Uint8Array>(gunzip)],
  ['x-gzip', promisify<Uint8Array, object, Uint8Array>(gunzip)],
  ['deflate', promisify<Uint8Array, object, Uint8Array>(inflate)],
  ['br', promisify<Uint8Array, object, Uint8Array>(brotliDecompress)],
  ['zstd', promisify<Uint8Array, object, Uint8Array>(zstdDecompress)],
]);

function tooLarge(response: Response, limit: number): NetworkError {
  return new NetworkError(`${response.url.host} sent more than the limit of ${limit} bytes`, {
    code: 'BODY_TOO_LARGE',
    hint: 'check whether this is a container registry; -v shows the requests',
  });
}

/**
 * Decodes a `Content-Encoding`, which some servers apply despite `Accept-Encoding: identity`. The limit
 * applies to the result too.
 */
async function decodeContent(bytes: Uint8Array, response: Response, limit: number): Promise<Uint8Array> {
  const encoding = (response.header('content-encoding') ?? '').trim().toLowerCase();
  // Storage servers may send a stale header with a plain file. JSON text is not encoded.
  const plain = bytes.length === 0 || bytes[0] === '{'.charCodeAt(0);
  if (encoding === '' || encoding === 'identity' || plain) return bytes;
  const decoder = DECODERS.get(encoding);
  const { host } = response.url;
  if (!decoder)
    throw new NetworkError(
      `cannot decode the answer of ${host}: unknown encoding ${printable(encoding, 40)}`,
    );
  try {
    return await decoder(bytes, { maxOutputLength: limit });
  } catch (error) {
    if (hasCode(error, 'ERR_BUFFER_TOO_LARGE')) throw tooLarge(response, limit);
    throw new NetworkError(`cannot decode the answer of ${host}: corrupt ${encoding} data`, { cause: error });
  }
}

/** Returns the value of `Content-Length`, in bytes; undefined without a valid one. */
export function contentLength(response: Response): number | undefined {
  const text = response.header('content-length') ?? '';
  return /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

/**
 * Reads a small body to its end, and decodes it.
 *
 * @param limit in bytes
 * @param timeout milliseconds for the whole body
 * @throws NetworkError if the body is longer than `limit` or a web page; TransientError if it breaks off,
 * stalls or takes too long
 */
export async function readDocument(
  response: Response,
  limit: number,
  timeout = response.documentTimeout,
): Promise<Uint8Array> {
  const length = contentLength(response) ?? 0;
  if (length > limit) {
    response.discard();
    throw tooLarge(response, limit);
  }
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    response.discard();
  }, timeout);
  // Copied into one buffer: a server may send each byte as a chunk, which costs a hundred bytes of memory.
  let bytes = Buffer.allocUnsafe(Math.min(limit, length || FIRST_BUFFER_BYTES));
  let size = 0;
  try {
    for await (const chunk of response.body) {
      const needed = size + chunk.length;
      if (needed > limit) throw tooLarge(response, limit);
      if (needed > bytes.length) {
        const larger = Buffer.allocUnsafe(Math.min(limit, Math.max(needed, 2 * bytes.length)));
        bytes.copy(larger, 0, 0, size);
        bytes = larger;
      }
      bytes.set(chunk, size);
      size = needed;
    }
  } catch (error) {
    response.signal.throwIfAborted();
    if (!late) throw error;
    const seconds = Math.round(timeout / 1000);
    throw new TransientError(`${response.url.host} did not send its whole answer within ${seconds} s`, {
      code: 'STALLED',
      cause: error,
    });
  } finally {
    clearTimeout(timer);
  }
  const document = await decodeContent(bytes.subarray(0, size), response, limit);
  if (response.status === 200 && WEB_PAGE.test(Buffer.from(document.subarray(0, 256)).toString('latin1')))
    throw webPage(response);
  return document;
}

/** The beginning of an HTML document. No document of a registry begins so. */
const WEB_PAGE = /^[\s\xef\xbb\xbf]*<(?:!doctype|!--|html|head|body|meta|script)\b/i;

/** Returns the error for a web page as the answer: a captive portal sends one for every path. */
export function webPage({ url }: Pick<Response, 'url'>): NetworkError {
  return new NetworkError(
    `${url.host} answers with a web page: it is not a registry, or a login page is in between`,
    {
      code: 'WEB_PAGE',
      hint: `check the name of the registry, or log in to the network: open http://${url.host} in a browser`,
    },
  );
}

/** Reads the body of a failure; empty if it cannot be read whole, since the status says enough. */
export async function readFailure(response: Response): Promise<Uint8Array> {
  return readDocument(response, MAX_ERROR_BYTES).catch(() => {
    response.signal.throwIfAborted();
    return new Uint8Array(0);
  });
}

/** Reads the rest of a small body, so that its connection can be used again. */
export async function drain(response: Response): Promise<void> {
  await readDocument(response, MAX_ERROR_BYTES, DRAIN_TIMEOUT).catch(() => undefined);
}

/** Error codes of the distribution specification for something that does not exist. */
const ABSENT_CODES = new Set([
  'NAME_UNKNOWN',
  'MANIFEST_UNKNOWN',
  'BLOB_UNKNOWN',
  'NAME_INVALID',
  'NOT_FOUND',
]);

function detailText(value: unknown): string {
  if (!isObject(value)) return '';
  const [code, message] = [textOf(value['code']), textOf(value['message'])];
  return message && code ? `${message} (${code})` : (message ?? code ?? '');
}

/**
 * Returns the registry's own words about a failure: `{"errors":[{"code","message"}]}` (distribution
 * specification), `{"error":"…"}` (registry v1 and others), or a short plain text. A web page is ignored.
 *
 * @returns `text` can be printed; undefined without words
 */
export function registryWords(body: Uint8Array): {
  readonly codes: readonly string[];
  readonly text: string | undefined;
} {
  const text = Buffer.from(body.subarray(0, MAX_ERROR_BYTES)).toString('utf8').trim();
  const document = jsonOf(text);
  if (document === undefined)
    return { codes: [], text: text === '' || text.startsWith('<') ? undefined : printable(text, 200) };
  if (!isObject(document)) return { codes: [], text: undefined };
  const errors: unknown[] = Array.isArray(document['errors']) ? document['errors'] : [document];
  const codes = errors.flatMap((each) => (isObject(each) ? (textOf(each['code']) ?? []) : []));
  const plain = ['error', 'message', 'details', 'detail'].map((key) => textOf(document[key]));
  const said = errors.slice(0, 3).map(detailText).filter(Boolean).join('; ') || plain.find(Boolean);
  return { codes, text: said === undefined ? undefined : printable(said, 300) };
}

const CHECK_TAG = 'check the name and the tag (dlrootfs tags NAME lists them)';

/** The document or blob that a request is for, in the words of errors. */
export interface Subject {
  /** Completes `cannot read …`: `the manifest of library/alpine:latest`. */
  readonly subject: string;
  /** The message if it does not exist: `library/alpine has no tag latest`. Default: `… does not exist`. */
  readonly absent?: string | undefined;
  /** The hint if it does not exist. */
  readonly absentHint?: string | undefined;
  /** The repository, which the error names instead if that does not exist. */
  readonly repository?: string | undefined;
}

/**
 * Returns the error for an answer other than the expected one.
 *
 * @param used names the credentials in the request, if any
 */
export function answerError(
  response: Response,
  body: Uint8Array,
  { subject, absent = `${subject} does not exist`, absentHint = CHECK_TAG, repository }: Subject,
  used?: string,
): DlrootfsError {
  const { status, url } = response;
  const { codes, text } = registryWords(body);
  const answered = `${url.host} answered ${status}${text === undefined ? '' : `: ${text}`}`;
  const message = `cannot read ${subject}: ${answered}`;
  const retryAfter = parseRetryAfter(response.header('retry-after'), Date.now());
  if (status === 429) {
    const quota = rateLimitText(response.header);
    const later =
      retryAfter === undefined ? 'try again later' : `try again in ${Math.ceil(retryAfter / 1000)} s`;
    const login = used === undefined ? 'log in for a larger quota, ' : '';
    return new RateLimitError(
      `${message}; the rate limit is reached${quota === undefined ? '' : ` (${quota})`}`,
      { hint: `${login}use a mirror (--mirror), or ${later}`, retryAfter },
    );
  }
  if (status === 401 || status === 403) {
    return new UnauthorizedError(`${message}; used ${used ?? 'no credentials'}`, {
      hint:
        used === undefined
          ? `check the name; for a private image ${LOG_IN}`
          : 'check user name and password, the name of the image, and whether this account may read it',
    });
  }
  if (status === 404 || status === 410 || codes.some((code) => ABSENT_CODES.has(code))) {
    const isRepository = repository !== undefined && codes.includes('NAME_UNKNOWN');
    const hint = isRepository ? 'check the name' : absentHint;
    return new NotFoundError(`${isRepository ? `${repository} does not exist` : absent} (${answered})`, {
      hint: used === undefined ? `${hint}; private images need credentials` : hint,
    });
  }
  if (status === 408 || status === 425 || status >= 500) return new TransientError(message, { retryAfter });
  return new NetworkError(message, {
    ...(text === undefined && { hint: 'check whether this is a container registry' }),
  });
}

/**
 * Parses `Retry-After`: seconds, or an HTTP date (RFC 9110, 10.2.3), of which one in the past means 0.
 *
 * @param now milliseconds since 1970
 * @returns milliseconds to wait; undefined if the header is missing or invalid
 */
export function parseRetryAfter(value: string | undefined, now: number): number | undefined {
  const text = value?.trim() ?? '';
  if (/^\d{1,12}$/.test(text)) return Number(text) * 1000;
  if (!/^[A-Za-z]{3,9}, /.test(text) && !/^[A-Za-z]{3} [A-Za-z]{3} /.test(text)) return undefined;
  const time = Date.parse(text.endsWith(' GMT') ? text : `${text} GMT`);
  return Number.isNaN(time) ? undefined : Math.max(0, time - now);
}

function inWords(seconds: number): string {
  const hours = seconds / 3600;
  if (hours >= 1 && Number.isInteger(hours)) return hours === 1 ? 'an hour' : `${hours} hours`;
  const minutes = seconds / 60;
  if (minutes >= 1 && Number.isInteger(minutes)) return minutes === 1 ? 'a minute' : `${minutes} minutes`;
  return `${seconds} s`;
}

/** Parses `100;w=21600`: 100 requests in 21600 seconds. */
function parseQuota(value: string | undefined): { count: number; window: number | undefined } | undefined {
  const match = /^\s*(\d{1,12})\s*(?:;\s*w=(\d{1,12}))?/.exec(value ?? '');
  if (!match) return undefined;
  return { count: Number(match[1]), window: match[2] === undefined ? undefined : Number(match[2]) };
}

/**
 * Puts the `ratelimit-*` headers of an answer into words, as the end of a sentence: `0 of 100 requests left
 * in 6 hours, counted for 203.0.113.7`. Undefined without them. All numbers are the server's.
 *
 * @param header returns the value of a header; undefined if it is missing
 */
export function rateLimitText(header: Response['header']): string | undefined {
  const limit = parseQuota(header('ratelimit-limit') ?? header('x-ratelimit-limit'));
  const left = parseQuota(header('ratelimit-remaining') ?? header('x-ratelimit-remaining'));
  if (!limit && !left) return undefined;
  const requests = left
    ? `${left.count}${limit ? ` of ${limit.count}` : ''} requests left`
    : `${limit!.count} requests are allowed`;
  const window = limit?.window ?? left?.window;
  const per = window === undefined ? '' : ` in ${inWords(window)}`;
  const source = header('docker-ratelimit-source');
  return `${requests}${per}${source === undefined ? '' : `, counted for ${printable(source, 80)}`}`;
}

/**
 * Returns the texts of `Warning: 299 - "text"` headers, by which registries inform users (distribution
 * specification).
 */
export function warningTexts(headers: readonly string[]): readonly string[] {
  const texts = headers.join(', ').matchAll(/\b299 \S+ "((?:[^"\\]|\\.)*)"/g);
  return [...texts].map((match) => printable(match[1]!.replaceAll(/\\(.)/g, '$1'), 300));
}

/** One challenge of a `WWW-Authenticate` header (RFC 9110, 11.6.1). */
export interface Challenge {
  /** Lower case. */
  readonly scheme: string;
  /** Names in lower case; the first value of a repeated name. */
  readonly parameters: ReadonlyMap<string, string>;
}

const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
/**
 * Matches a part of a header: a parameter; a scheme, with the token68 that may follow; or any one character.
 */
const PARTS = new RegExp(
  [
    String.raw`(?<name>${TOKEN})[ \t]*=[ \t]*(?:"(?<quoted>(?:[^"\\]|\\.)*)(?:"|$)|(?<plain>[^\s,]*))`,
    String.raw`(?<scheme>${TOKEN})(?:[ \t]+(?:[0-9A-Za-z._~+/-]+=*(?=\s*(?:,|$)))?)?`,
    '.',
  ].join('|'),
  'gs',
);

/**
 * Parses the challenges in all `WWW-Authenticate` headers, in order. Malformed parts, which registries and
 * proxies often send, are skipped.
 */
export function parseChallenges(headers: readonly string[]): readonly Challenge[] {
  return headers.flatMap((header) => {
    const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
    for (const { groups = {} } of header.matchAll(PARTS)) {
      const { quoted, plain = '' } = groups;
      const name = groups['name']?.toLowerCase();
      const scheme = groups['scheme']?.toLowerCase();
      const parameters = challenges.at(-1)?.parameters;
      const value = quoted === undefined ? plain : quoted.replaceAll(/\\(.)/gs, '$1');
      if (name !== undefined && !parameters?.has(name)) parameters?.set(name, value);
      if (scheme !== undefined) challenges.push({ scheme, parameters: new Map() });
    }
    return challenges;
  });
}

/**
 * Returns the query of the next page from a `Link: <…>; rel="next"` header (RFC 8288); undefined on the last
 * page, and if the link leads to another server or another list.
 *
 * @param list the end of the path of each page
 */
export function nextPage(link: string | undefined, page: URL, list: string): string | undefined {
  const [, target] = /<([^>]*)>\s*;[^,]*\brel="?next"?/i.exec(link ?? '') ?? [];
  const next = target === undefined ? null : URL.parse(target, page.href);
  if (!next || next.origin !== page.origin || !next.pathname.endsWith(list)) return undefined;
  return next.search;
}
