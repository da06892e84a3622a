import { createPublicKey, type JsonWebKey, type KeyObject, verify } from 'node:crypto';
import { IntegrityError, printable } from '../errors.ts';
import { Digest } from './digest.ts';
import {
  isObject,
  type JsonObject,
  listOf,
  MAX_LAYERS,
  parseJsonObject,
  textOf,
  ValueLimit,
} from './json.ts';
import { MediaType } from './media-types.ts';

/**
 * Parses Docker's image manifest version 2, schema 1: layers and the image JSON of registry v1, newest first,
 * with a signature over a part of the document. The rules are those of Docker's pull
 * (distribution/pull_v2.go) and of docker/libtrust.
 */

/** An image that existed during the build: the base, or the result of a step. */
export interface Schema1Entry {
  /** The v1 id: 64 hex digits. */
  readonly id: string;
  readonly blob: Digest;
  /** True if the step changed only the configuration; the blob is an empty archive then. */
  readonly empty: boolean;
  /** The image JSON of registry v1. */
  readonly json: JsonObject;
}

export interface Schema1 {
  readonly kind: 'schema1';
  readonly mediaType: string;
  /** Base first; at least one. */
  readonly entries: readonly Schema1Entry[];
}

/** The gzip archive with nothing in it that Docker listed for empty layers. */
const EMPTY_BLOB = 'sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4';

/**
 * Parses the body of a schema 1 manifest. If its media type or `signatures` say that it is signed, the
 * signature must be valid, and only the signed part is parsed.
 *
 * @returns `payload`: the bytes of its digest, which are all that was parsed
 * @throws IntegrityError
 */
export function parseSchema1(
  body: Uint8Array,
  mediaType: string,
  what: string,
): Schema1 & { readonly payload: Uint8Array } {
  const document = parseJsonObject(body, what);
  const signed = mediaType === MediaType.schema1Signed || document['signatures'] !== undefined;
  const payload = signed ? signedPayload(body, document['signatures'], what) : body;
  const entries = entriesOf(signed ? parseJsonObject(payload, `the signed part of ${what}`) : document, what);
  return {
    kind: 'schema1',
    mediaType: signed ? MediaType.schema1Signed : MediaType.schema1,
    entries: baseFirst(entries, what),
    payload,
  };
}

function entriesOf(document: JsonObject, what: string): readonly ParsedEntry[] {
  const { schemaVersion } = document;
  if (schemaVersion !== 1) throw new IntegrityError(`${what} has a schemaVersion other than 1`);
  const fsLayers = listOf(document['fsLayers'], 'fsLayers', what, MAX_LAYERS);
  const history = listOf(document['history'], 'history', what);
  if (fsLayers.length !== history.length) {
    throw new IntegrityError(`${what} has ${fsLayers.length} layers but a history of ${history.length}`);
  }
  if (fsLayers.length === 0) throw new IntegrityError(`${what} has no layers`);
  const limit = new ValueLimit();
  return fsLayers.map((layer, place) => entryOf({ layer, history: history[place], place }, what, limit));
}

type ParsedEntry = Schema1Entry & { readonly parent: string | undefined };

interface RawEntry {
  readonly layer: unknown;
  readonly history: unknown;
  readonly place: number;
}

/** @param limit on the values of all entries together */
function entryOf({ layer, history, place }: RawEntry, what: string, limit: ValueLimit): ParsedEntry {
  const blob = Digest.parse(
    isObject(layer) ? layer['blobSum'] : undefined,
    `fsLayers[${place}].blobSum of ${what}`,
  );
  const text = isObject(history) ? history['v1Compatibility'] : undefined;
  if (typeof text !== 'string') {
    throw new IntegrityError(`history[${place}].v1Compatibility of ${what} is missing or not a string`);
  }
  const json = parseJsonObject(
    new TextEncoder().encode(text),
    `history[${place}].v1Compatibility of ${what}`,
    limit,
  );
  const { id, throwaway } = json;
  if (typeof id !== 'string' || !/^[a-f0-9]{64}$/.test(id)) {
    throw new IntegrityError(`history[${place}] of ${what} has no id of 64 hex digits`);
  }
  return { id, parent: textOf(json['parent']), blob, empty: throwaway === true || blob === EMPTY_BLOB, json };
}

/**
 * Checks the chain of parents and reverses the order. Of two neighbours with the same id the older one is
 * kept.
 */
function baseFirst(newestFirst: readonly ParsedEntry[], what: string): readonly Schema1Entry[] {
  const entries: Schema1Entry[] = [];
  const seen = new Set<string>();
  let below: string | undefined;
  for (const entry of newestFirst.toReversed()) {
    if (entry.id === below) continue;
    if (seen.has(entry.id)) throw new IntegrityError(`${what} has the layer id ${entry.id} more than once`);
    if (entry.parent !== below) {
      const parent = entry.parent === undefined ? 'no parent' : `the parent ${printable(entry.parent, 80)}`;
      throw new IntegrityError(`layer ${entry.id} of ${what} names ${parent}, expected ${below ?? 'none'}`);
    }
    seen.add(entry.id);
    below = entry.id;
    entries.push({ id: entry.id, blob: entry.blob, empty: entry.empty, json: entry.json });
  }
  return entries;
}

/** The `protected` header of a signature, which names the signed part of the document. */
interface ProtectedHeader {
  readonly length: number;
  readonly tail: string;
}

const HASH: Readonly<Record<string, string>> = {
  ES256: 'sha256',
  ES384: 'sha384',
  ES512: 'sha512',
  RS256: 'sha256',
  RS384: 'sha384',
  RS512: 'sha512',
};

/**
 * Returns the signed part of a schema 1 manifest (docker/libtrust, jsonsign.go): the first `formatLength`
 * bytes of the document and the decoded `formatTail`. All signatures must name the same part and be valid.
 * The keys come with the signatures, so this proves that the document is whole, not who made it.
 *
 * @throws IntegrityError
 */
function signedPayload(body: Uint8Array, signatures: unknown, what: string): Uint8Array {
  if (!Array.isArray(signatures) || signatures.length === 0 || signatures.length > 100) {
    throw new IntegrityError(`"signatures" of ${what} is not a list of signatures`);
  }
  const formats = signatures.map((signature: unknown) => protectedHeaderOf(signature, what));
  const { length, tail } = formats[0]!;
  if (formats.some((format) => format.length !== length || format.tail !== tail)) {
    throw new IntegrityError(`the signatures of ${what} are of different documents`);
  }
  if (length > body.length)
    throw new IntegrityError(`the signature of ${what} covers more bytes than the document has`);
  const payload = Buffer.concat([body.subarray(0, length), Buffer.from(tail, 'base64url')]);
  for (const signature of signatures) {
    if (!isObject(signature) || !isValid(signature, payload)) {
      throw new IntegrityError(`the signature of ${what} is not valid`, { code: 'BAD_SIGNATURE' });
    }
  }
  return payload;
}

function protectedHeaderOf(signature: unknown, what: string): ProtectedHeader {
  const header = isObject(signature) ? signature['protected'] : undefined;
  if (typeof header !== 'string') throw new IntegrityError(`a signature of ${what} has no protected header`);
  const name = `the protected header of ${what}`;
  const format = parseJsonObject(Buffer.from(header, 'base64url'), name);
  const { formatLength, formatTail } = format;
  if (typeof formatLength !== 'number' || !Number.isSafeInteger(formatLength) || formatLength < 0) {
    throw new IntegrityError(`formatLength in ${name} is ${printable(String(formatLength), 40)}`);
  }
  if (typeof formatTail !== 'string' || !/^[A-Za-z0-9_-]*={0,2}$/.test(formatTail)) {
    throw new IntegrityError(`formatTail in ${name} is not base64url`);
  }
  return { length: formatLength, tail: formatTail };
}

function isValid(entry: JsonObject, payload: Buffer): boolean {
  const { header, signature, protected: protectedHeader } = entry;
  if (!isObject(header) || typeof signature !== 'string' || typeof protectedHeader !== 'string') return false;
  const { alg, jwk } = header;
  if (typeof alg !== 'string' || !Object.hasOwn(HASH, alg) || !isObject(jwk)) return false;
  const text = Buffer.from(`${protectedHeader}.${payload.toString('base64url')}`);
  try {
    const key = keyOf(jwk);
    return verify(HASH[alg], text, { key, dsaEncoding: 'ieee-p1363' }, Buffer.from(signature, 'base64url'));
  } catch {
    return false;
  }
}

/** Takes only the public parts, so that nothing else in the document reaches the parser of keys. */
function keyOf(jwk: JsonObject): KeyObject {
  const key: JsonWebKey = {};
  for (const name of ['kty', 'crv', 'x', 'y', 'n', 'e'] as const) {
    const value = jwk[name];
    if (typeof value === 'string') key[name] = value;
  }
  return createPublicKey({ key, format: 'jwk' });
}
