import {
  type DlrootfsError,
  NetworkError,
  NotFoundError,
  printable,
  UnauthorizedError,
} from '../../errors.ts';
import { isObject } from '../../oci/json.ts';
import { readAtMost } from './body.ts';
import type { Response } from './exchange.ts';
import { describeRateLimit } from '../rate-limit.ts';
import type { Timeouts } from '../registry-options.ts';
import { parseRetryAfter } from '../retry-after.ts';
import { TooManyRequestsError, TransientError } from '../transient.ts';

/** Error bodies are read up to this many bytes. */
const MAX_ERROR_BYTES = 65_536;

/** Codes of the distribution specification that mean "it is not there". */
const absentCodes = new Set([
  'NAME_UNKNOWN',
  'MANIFEST_UNKNOWN',
  'BLOB_UNKNOWN',
  'NAME_INVALID',
  'NOT_FOUND',
]);

/** The body of an answer that is a failure; empty where it cannot be read whole, since the status says enough. */
export async function readFailure(
  response: Response,
  timeouts: Timeouts,
  signal: AbortSignal,
): Promise<Uint8Array> {
  return readAtMost(response, MAX_ERROR_BYTES, timeouts, signal).catch(() => {
    signal.throwIfAborted();
    return new Uint8Array(0);
  });
}

interface RegistryWords {
  readonly codes: readonly string[];
  /** Fit for a terminal; undefined when the registry said nothing a person can read. */
  readonly text: string | undefined;
}

function detailText(value: unknown): string {
  if (!isObject(value)) return '';
  const code = typeof value['code'] === 'string' ? value['code'] : '';
  const message = typeof value['message'] === 'string' ? value['message'] : '';
  return message && code ? `${message} (${code})` : message || code;
}

/**
 * What a registry says about a failure: `{"errors":[{"code","message"}]}` of the distribution specification, `{"error":"…"}` of
 * registry v1 and others, or a short plain text. A web page is no answer of a registry.
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

/** How an answer ends a sentence about it: `404: manifest unknown (MANIFEST_UNKNOWN)`. */
function answered(response: Response, words: RegistryWords): string {
  return words.text === undefined ? String(response.status) : `${response.status}: ${words.text}`;
}

/**
 * The error for an answer that is not what was asked for. `subject` names that: `the manifest of library/alpine:latest`. `sent`
 * names the credentials that went with the request, if any.
 */
export function answerError(
  response: Response,
  body: Uint8Array,
  subject: string,
  sent?: string,
): DlrootfsError {
  const { status, url } = response;
  const words = registryWords(body);
  const said = answered(response, words);
  const retryAfter = parseRetryAfter(response.header('retry-after'), Date.now());
  if (status === 429) return tooMany(response, words, retryAfter, sent);
  if (status === 401 || status === 403) return refused(response, words, subject, sent);
  if (status === 404 || status === 410 || words.codes.some((code) => absentCodes.has(code))) {
    const hint =
      sent === undefined
        ? 'check the name and the tag (dlrootfs tags NAME lists them); private images need credentials'
        : 'check the name and the tag (dlrootfs tags NAME lists them)';
    return new NotFoundError(`${subject} is not there: ${url.host} answered ${said}`, { hint });
  }
  if (status === 408 || status === 425 || status >= 500) {
    return new TransientError(`${url.host} failed with ${said}, asked for ${subject}`, { retryAfter });
  }
  return new NetworkError(`${url.host} answered ${said}, asked for ${subject}`, {
    ...(words.text === undefined && { hint: 'is this a container registry?' }),
  });
}

function refused(
  response: Response,
  words: RegistryWords,
  subject: string,
  sent: string | undefined,
): UnauthorizedError {
  const with_ = sent === undefined ? 'no credentials were sent' : `sent were ${sent}`;
  const message = `${subject} cannot be read, or does not exist: ${response.url.host} answered ${answered(response, words)}; ${with_}`;
  const hint =
    sent === undefined
      ? 'check the name; if it is private, log in with docker or podman, or use --user'
      : 'check the name, and whether this account may read it';
  return new UnauthorizedError(message, { hint });
}

function tooMany(
  response: Response,
  words: RegistryWords,
  retryAfter: number | undefined,
  sent: string | undefined,
): TooManyRequestsError {
  const quota = describeRateLimit((name) => response.header(name));
  const said = words.text === undefined ? '' : `: ${words.text}`;
  const message = `${response.url.host} has a rate limit, and it is reached (429)${said}${quota === undefined ? '' : ` [${quota}]`}`;
  const later =
    retryAfter === undefined ? 'try again later' : `try again in ${Math.ceil(retryAfter / 1000)} s`;
  const hint =
    sent === undefined
      ? `log in for a larger quota, use a mirror (--mirror), or ${later}`
      : `use a mirror (--mirror), or ${later}`;
  return new TooManyRequestsError(message, { hint, retryAfter });
}
