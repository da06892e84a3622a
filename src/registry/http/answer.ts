/** Reads answers: small documents, headers, and answers that are not the expected ones, as an error. */
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

/** Error bodies are read up to this many bytes. */
const MAX_ERROR_BYTES = 65_536;

/** Milliseconds to drain a body: a new connection takes less. */
const DRAIN_TIMEOUT = 1000;
/** For a body of unknown length. */
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

/** Undoes a `Content-Encoding`, which some servers apply despite `Accept-Encoding: identity`; the limit holds for the result too. */
async function decode(bytes: Uint8Array, response: Response, limit: number): Promise<Uint8Array> {
  const encoding = (response.header('content-encoding') ?? '').trim().toLowerCase();
  // Storage servers may name an encoding that the file no longer has: JSON text is not encoded.
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

/** The length of a body in bytes, by the header `Content-Length`; undefined without a valid one. */
export function contentLength(response: Response): number | undefined {
  const text = response.header('content-length') ?? '';
  return /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

/**
 * The whole of a small body, decoded.
 *
 * @param timeout milliseconds for the whole of it
 * @throws NetworkError when it is longer than `limit` bytes or a web page, TransientError when it breaks off, stalls, or takes too long
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
  // Copied together: a server may send each byte as a chunk of its own, which costs a hundred.
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
  const document = await decode(bytes.subarray(0, size), response, limit);
  if (response.status === 200 && WEB_PAGE.test(Buffer.from(document.subarray(0, 256)).toString('latin1')))
    throw webPage(response);
  return document;
}

/** The beginning of an HTML document: no document of a registry begins so. */
const WEB_PAGE = /^[\s\xef\xbb\xbf]*<(?:!doctype|!--|html|head|body|meta|script)\b/i;

/** The error for a web page in place of an answer: a captive portal answers so on every path. */
export function webPage({ url }: Pick<Response, 'url'>): NetworkError {
  return new NetworkError(
    `${url.host} answers with a web page: it is not a registry, or a login page is in between`,
    {
      code: 'WEB_PAGE',
      hint: `check the name of the registry, or log in to the network: open http://${url.host} in a browser`,
    },
  );
}

/** The body of an answer that is a failure; empty where it cannot be read whole, since the status says enough. */
export async function readFailure(response: Response): Promise<Uint8Array> {
  return readDocument(response, MAX_ERROR_BYTES).catch(() => {
    response.signal.throwIfAborted();
    return new Uint8Array(0);
  });
}

/** Reads what is left of a small body, so that its connection can be used again. */
export async function drain(response: Response): Promise<void> {
  await readDocument(response, MAX_ERROR_BYTES, DRAIN_TIMEOUT).catch(() => undefined);
}

/** Codes of the distribution specification for what does not exist. */
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
 * The registry's own words about a failure: `{"errors":[{"code","message"}]}` of the distribution specification, `{"error":"…"}` of
 * registry v1 and others, or a short plain text. A web page is ignored. The text is fit for a terminal; undefined when there is none.
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

/** The object of a request, for errors. */
export interface Subject {
  /** As in `cannot read …`: `the manifest of library/alpine:latest`. */
  readonly subject: string;
  /** Where it does not exist: `library/alpine has no tag latest`. Left out: `… does not exist`. */
  readonly absent?: string | undefined;
  /** The hint where it does not exist. */
  readonly absentHint?: string | undefined;
  /** The repository of a document or blob, for an answer that says that it does not exist. */
  readonly repository?: string | undefined;
}

/**
 * The error for an answer other than the expected one.
 *
 * @param used names the credentials that went with the request, if any
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
    const quota = describeRateLimit(response.header);
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
 * How long a server wants the client to wait, in milliseconds: `Retry-After` in seconds or as an HTTP date (RFC 9110, 10.2.3).
 * Undefined when it is missing or neither. A date in the past means 0.
 *
 * @param now milliseconds since 1970
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

/** `100;w=21600`: 100 requests in 21600 seconds. */
function parseQuota(value: string | undefined): { count: number; window: number | undefined } | undefined {
  const match = /^\s*(\d{1,12})\s*(?:;\s*w=(\d{1,12}))?/.exec(value ?? '');
  if (!match) return undefined;
  return { count: Number(match[1]), window: match[2] === undefined ? undefined : Number(match[2]) };
}

/**
 * The `ratelimit-*` headers of an answer in words, as the end of a sentence: `0 of 100 requests left in 6 hours, counted for
 * 203.0.113.7`. Undefined when they say nothing. Only what the server says is printed, never a number of our own.
 *
 * @param header reads one header; undefined when it is missing
 */
export function describeRateLimit(header: Response['header']): string | undefined {
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

/** The texts of `Warning: 299 - "text"` headers, which registries may send to people (distribution specification). */
export function warningTexts(headers: readonly string[]): readonly string[] {
  const texts = headers.join(', ').matchAll(/\b299 \S+ "((?:[^"\\]|\\.)*)"/g);
  return [...texts].map((match) => printable(match[1]!.replaceAll(/\\(.)/g, '$1'), 300));
}

/** One challenge of a `WWW-Authenticate` header (RFC 9110, 11.6.1). */
export interface Challenge {
  /** Lower case. */
  readonly scheme: string;
  /** Names in lower case; of a repeated one the first. */
  readonly parameters: ReadonlyMap<string, string>;
}

const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
/** The parts of a header: a parameter; a scheme, with the token68 that may follow it; anything else, one character at a time. */
const PARTS = new RegExp(
  [
    String.raw`(?<name>${TOKEN})[ \t]*=[ \t]*(?:"(?<quoted>(?:[^"\\]|\\.)*)(?:"|$)|(?<plain>[^\s,]*))`,
    String.raw`(?<scheme>${TOKEN})(?:[ \t]+(?:[0-9A-Za-z._~+/-]+=*(?=\s*(?:,|$)))?)?`,
    '.',
  ].join('|'),
  'gs',
);

/**
 * Reads all challenges of all `WWW-Authenticate` headers, in order. Malformed parts are skipped, since registries and proxies send many.
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
