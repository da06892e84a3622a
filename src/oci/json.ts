import { IntegrityError, printable } from '../errors.ts';

/** An object of a JSON document; every key is an own property, `__proto__` too. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** Limit on the layers of an image, to bound memory. Overlay file systems stop at 500, Docker at 127. */
export const MAX_LAYERS = 4096;

/** Limit on nesting; real manifests, indexes and configs stay below ten. */
const MAX_NESTING = 100;

/** Limit on the values of a document, which take 30 MiB at most. An index of 10,000 entries has fewer. */
const MAX_VALUES = 200_000;

/** Limits the values that several JSON documents have together. An empty array or object counts twice. */
export class ValueLimit {
  readonly #most: number;
  #left: number;

  constructor(most = MAX_VALUES) {
    this.#most = most;
    this.#left = most;
  }

  /** @throws IntegrityError that names `what` if the documents so far have too many */
  count(values: number, what: string): void {
    this.#left -= values;
    if (this.#left < 0) throw new IntegrityError(`${what} has more than ${this.#most} values`);
  }
}

const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/**
 * Parses a JSON document from outside. Bytes that are not UTF-8 become U+FFFD, and of equal keys the last one
 * counts, as in Go's decoder, which reads nearly all of these documents.
 *
 * @throws IntegrityError that names `what` for invalid JSON; for nesting deeper than any real document, so
 * that callers may recurse; and for more values than `limit` allows, whose memory is many times the
 * document's
 */
export function parseJson(bytes: Uint8Array, what: string, limit = new ValueLimit()): unknown {
  const { depth, values } = measureDocument(bytes);
  if (depth > MAX_NESTING) throw new IntegrityError(`${what} is nested more than ${MAX_NESTING} levels deep`);
  limit.count(values, what);
  const text = decoder.decode(bytes);
  try {
    return JSON.parse(text);
  } catch (error) {
    // Without V8's quotation of the text, in which a secret would not be found.
    const message = error instanceof Error ? error.message.replace(/, (?:\.\.\.)?".*$/s, '') : 'unknown';
    const reason = printable(message, 160);
    throw new IntegrityError(`${what} is not valid JSON: ${reason}`);
  }
}

/** Parses a text from outside; undefined if it is not JSON. */
export function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/**
 * Parses a JSON document that must be an object.
 *
 * @throws as `parseJson`, and IntegrityError for other values
 */
export function parseJsonObject(bytes: Uint8Array, what: string, limit?: ValueLimit): JsonObject {
  const value = parseJson(bytes, what, limit);
  if (!isObject(value)) throw new IntegrityError(`${what} is not a JSON object`);
  return value;
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Returns the value if it is a non-empty string, else undefined. Go writes "" and null for an absent string.
 */
export function textOf(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

/** Returns the strings of an array, without other members; undefined if the value is not an array. */
export function textsOf(value: unknown): readonly string[] | undefined {
  return Array.isArray(value) ? value.filter((member) => typeof member === 'string') : undefined;
}

/** Returns the members of an object that are strings; undefined if it is not an object. */
export function textMapOf(value: unknown): Readonly<Record<string, string>> | undefined {
  if (!isObject(value)) return undefined;
  const members = Object.entries(value).filter(
    (member): member is [string, string] => typeof member[1] === 'string',
  );
  return Object.fromEntries(members);
}

/**
 * Returns the members of an array in a document.
 *
 * @param key of the array, for messages
 * @throws IntegrityError that names `what` for another value, and for more than `most` members
 */
export function listOf(value: unknown, key: string, what: string, most = Infinity): readonly unknown[] {
  if (!Array.isArray(value)) throw new IntegrityError(`"${key}" of ${what} is not an array`);
  if (value.length <= most) return value;
  throw new IntegrityError(`${what} lists ${value.length} ${key}, ${most} are allowed`);
}

/**
 * Returns how deep a document is nested, and an upper bound of its values: one after each comma and opening
 * bracket.
 */
function measureDocument(bytes: Uint8Array): { readonly depth: number; readonly values: number } {
  let depth = 0;
  let deepest = 0;
  let values = 1;
  let inString = false;
  for (let index = 0; index < bytes.length; index += 1) {
    const byte = bytes[index];
    if (inString) {
      if (byte === 0x5c) index += 1;
      else if (byte === 0x22) inString = false;
    } else if (byte === 0x22) inString = true;
    else if (byte === 0x2c) values += 1;
    else if (byte === 0x7b || byte === 0x5b) {
      values += 1;
      depth += 1;
      deepest = Math.max(deepest, depth);
    } else if (byte === 0x7d || byte === 0x5d) depth -= 1;
  }
  return { depth: deepest, values };
}
