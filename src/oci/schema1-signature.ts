import { createPublicKey, verify } from 'node:crypto';
import type { JsonWebKey, KeyObject } from 'node:crypto';
import { IntegrityError, printable } from '../errors.ts';
import { isObject, parseJsonObject } from './json.ts';
import type { JsonObject } from './json.ts';

/** What a signature's `protected` header says of the document it stands in. */
interface Format {
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
 * The signed part of a schema 1 manifest (docker/libtrust, jsonsign.go): the first `formatLength` bytes of the document and the decoded
 * `formatTail`. All signatures must name the same part and be valid. The keys come with the signatures, so this proves that
 * the document is whole, not who made it. Throws IntegrityError.
 */
export function signedPayload(body: Uint8Array, signatures: unknown, what: string): Uint8Array {
  if (!Array.isArray(signatures) || signatures.length === 0 || signatures.length > 100) {
    throw new IntegrityError(`"signatures" of ${what} is not a list of signatures`);
  }
  const formats = signatures.map((signature: unknown) => formatOf(signature, what));
  const { length, tail } = formats[0]!;
  if (formats.some((format) => format.length !== length || format.tail !== tail)) {
    throw new IntegrityError(`the signatures of ${what} are of different documents`);
  }
  if (length > body.length) throw new IntegrityError(`the signature of ${what} covers more than there is`);
  const payload = Buffer.concat([body.subarray(0, length), Buffer.from(tail, 'base64url')]);
  for (const signature of signatures) {
    if (!isObject(signature) || !isValid(signature, payload)) {
      throw new IntegrityError(`the signature of ${what} is not valid`, { code: 'BAD_SIGNATURE' });
    }
  }
  return payload;
}

function formatOf(signature: unknown, what: string): Format {
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

/** Only the public parts, so that nothing else in the document reaches the key parser. */
function keyOf(jwk: JsonObject): KeyObject {
  const key: JsonWebKey = {};
  for (const name of ['kty', 'crv', 'x', 'y', 'n', 'e'] as const) {
    const value = jwk[name];
    if (typeof value === 'string') key[name] = value;
  }
  return createPublicKey({ key, format: 'jwk' });
}
