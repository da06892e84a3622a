/** Answers that are not the expected ones: their headers and bodies in words, and as an error. */
import {
  type DlrootfsError,
  NetworkError,
  NotFoundError,
  printable,
  UnauthorizedError,
} from '../../errors.ts';
import { isObject } from '../../oci/json.ts';
import type { Response } from './exchange.ts';
import { TooManyRequestsError, TransientError } from './transport-error.ts';

/** Error bodies are read up to this many bytes. */
export const MAX_ERROR_BYTES = 65_536;

/** Codes of the distribution specification for what does not exist. */
const ABSENT_CODES = new Set([
  'NAME_UNKNOWN',
  'MANIFEST_UNKNOWN',
  'BLOB_UNKNOWN',
  'NAME_INVALID',
  'NOT_FOUND',
]);

interface RegistryWords {
  readonly codes: readonly string[];
  /** Fit for a terminal; undefined when the answer has no readable text. */
  readonly text: string | undefined;
}

function detailText(value: unknown): string {
  if (!isObject(value)) return '';
  const code = typeof value['code'] === 'string' ? value['code'] : '';
  const message = typeof value['message'] === 'string' ? value['message'] : '';
  return message && code ? `${message} (${code})` : message || code;
}

/**
 * The registry's own words about a failure: `{"errors":[{"code","message"}]}` of the distribution specification, `{"error":"…"}` of
 * registry v1 and others, or a short plain text. A web page is ignored.
 */
export function registryWords(body: Uint8Array): RegistryWords {
  const text = Buffer.from(body.subarray(0, MAX_ERROR_BYTES)).toString('utf8').trim();
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    return { codes: [], text: text === '' || text.startsWith('<') ? undefined : printable(text, 200) };
  }
  if (!isObject(document)) return { codes: [], text: undefined };
  const errors: unknown[] = Array.isArray(document['errors']) ? document['errors'] : [document];
  const codes = errors.flatMap((each) =>
    isObject(each) && typeof each['code'] === 'string' ? [each['code']] : [],
  );
  const texts = errors.slice(0, 3).map(detailText).filter(Boolean);
  const plain = ['error', 'message', 'details', 'detail']
    .map((key) => document[key])
    .find((each) => typeof each === 'string');
  const said = texts.join('; ') || (typeof plain === 'string' ? plain : '');
  return { codes, text: said === '' ? undefined : printable(said, 300) };
}

const CHECK_TAG = 'check the name and the tag (dlrootfs tags NAME lists them)';

/** The object of a request, for errors. */
export interface Subject {
  /** As in `cannot read …`: `the manifest of library/alpine:latest`. */
  readonly subject: string;
  /** Where it does not exist: `library/alpine has no tag latest`. Left out: `… does not exist`. */
  readonly absent?: string | undefined;
  /** What to do where it does not exist. */
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
  const words = registryWords(body);
  const answered = `${url.host} answered ${status}${words.text === undefined ? '' : `: ${words.text}`}`;
  const message = `cannot read ${subject}: ${answered}`;
  const credentials = used ?? 'no credentials';
  const retryAfter = parseRetryAfter(response.header('retry-after'), Date.now());
  if (status === 429) {
    const quota = describeRateLimit((name) => response.header(name));
    const limit = quota === undefined ? '' : ` (${quota})`;
    const later =
      retryAfter === undefined ? 'try again later' : `try again in ${Math.ceil(retryAfter / 1000)} s`;
    const login = used === undefined ? 'log in for a larger quota, ' : '';
    const hint = `${login}use a mirror (--mirror), or ${later}`;
    return new TooManyRequestsError(
      `cannot read ${subject}: ${answered}; the rate limit is reached${limit}`,
      { hint, retryAfter },
    );
  }
  if (status === 401 || status === 403) {
    return new UnauthorizedError(`cannot read ${subject}: ${answered}; used ${credentials}`, {
      hint:
        used === undefined
          ? 'check the name; for a private image log in with docker or podman, or use --user'
          : 'check the name, and whether this account may read it',
    });
  }
  if (status === 404 || status === 410 || words.codes.some((code) => ABSENT_CODES.has(code))) {
    const isRepository = repository !== undefined && words.codes.includes('NAME_UNKNOWN');
    const hint = isRepository ? 'check the name' : absentHint;
    return new NotFoundError(`${isRepository ? `${repository} does not exist` : absent} (${answered})`, {
      hint: used === undefined ? `${hint}; private images need credentials` : hint,
    });
  }
  if (status === 408 || status === 425 || status >= 500) return new TransientError(message, { retryAfter });
  return new NetworkError(message, {
    ...(words.text === undefined && { hint: 'check whether this is a container registry' }),
  });
}

/** A storage server that a registry redirects to refuses: its signature may have expired, and a retry gets another. */
export function refusedByStorage(refusal: DlrootfsError): TransientError {
  return new TransientError(refusal.message, {
    hint: 'run it again; if the storage server refuses again, report it to the operator of the registry',
    cause: refusal,
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
 * What the `ratelimit-*` headers of an answer say, as the end of a sentence: `0 of 100 requests left in 6 hours, counted for
 * 203.0.113.7`. Undefined when they say nothing. Only what the server says is printed, never a number of our own.
 *
 * @param header reads one header; undefined when it is missing
 */
export function describeRateLimit(header: Response['header']): string | undefined {
  const limit = parseQuota(header('ratelimit-limit') ?? header('x-ratelimit-limit'));
  const left = parseQuota(header('ratelimit-remaining') ?? header('x-ratelimit-remaining'));
  const source = header('docker-ratelimit-source');
  const window = limit?.window ?? left?.window;
  const parts: string[] = [];
  if (left && limit) parts.push(`${left.count} of ${limit.count} requests left`);
  else if (limit) parts.push(`${limit.count} requests are allowed`);
  else if (left) parts.push(`${left.count} requests left`);
  if (parts.length === 0) return undefined;
  const per = window === undefined ? '' : ` in ${inWords(window)}`;
  return `${parts[0]}${per}${source === undefined ? '' : `, counted for ${printable(source, 80)}`}`;
}

/** The texts of `Warning: 299 - "text"` headers, which registries may send to people (distribution specification). */
export function warningTexts(headers: readonly string[]): readonly string[] {
  const texts = headers.join(', ').matchAll(/\b299 \S+ "((?:[^"\\]|\\.)*)"/g);
  return [...texts].map((match) => printable(match[1]!.replaceAll(/\\(.)/g, '$1'), 300));
}
