import { createHash } from 'node:crypto';
import { IntegrityError, printable } from '../errors.ts';

/** `algorithm:hex` of bytes as they are transferred, for layers compressed (OCI descriptor.md). */
export type Digest = string & { readonly digest: unique symbol };

/** `algorithm:hex` of a layer's uncompressed tar: the image config's `rootfs.diff_ids`. */
export type DiffID = string & { readonly diffID: unique symbol };

/** The registered algorithms (OCI descriptor.md), by names that Node knows too. */
export type DigestAlgorithm = 'sha256' | 'sha512';

const HEX_LENGTH: Readonly<Record<DigestAlgorithm, number>> = { sha256: 64, sha512: 128 };

function isAlgorithm(name: string): name is DigestAlgorithm {
  return Object.hasOwn(HEX_LENGTH, name);
}

/** Returns the reason why `text` is not a supported digest; undefined if it is one. */
export function digestFault(text: string): string | undefined {
  const colon = text.indexOf(':');
  if (colon < 1) return 'it must be algorithm:hex, as sha256:…';
  const algorithm = text.slice(0, colon);
  const hex = text.slice(colon + 1);
  if (!isAlgorithm(algorithm)) {
    return `the algorithm "${printable(algorithm, 40)}" is unknown; sha256 and sha512 are supported`;
  }
  if (/[A-F]/.test(hex) && /^[0-9a-fA-F]+$/.test(hex)) return 'its hex digits must be lower case';
  if (hex.length !== HEX_LENGTH[algorithm] || !/^[0-9a-f]+$/.test(hex)) {
    return `${algorithm} needs exactly ${HEX_LENGTH[algorithm]} hex digits after the colon`;
  }
  return undefined;
}

function parse(text: unknown, what: string): string {
  if (typeof text !== 'string') throw new IntegrityError(`${what} is missing or not a string`);
  const fault = digestFault(text);
  if (fault === undefined) return text;
  throw new IntegrityError(`${what} "${printable(text, 160)}" is malformed: ${fault}`);
}

export const Digest = {
  /**
   * Checks a digest from a manifest or header.
   *
   * @throws IntegrityError that names `what`
   */
  parse: (text: unknown, what = 'digest') => parse(text, what) as Digest,
};

export const DiffID = {
  /**
   * Checks a diffID from an image config.
   *
   * @throws IntegrityError that names `what`
   */
  parse: (text: unknown, what = 'diffID') => parse(text, what) as DiffID,
};

/** Returns the part before the colon, which `createHash` accepts; without a digest sha256. */
export function algorithmOf(digest: Digest | DiffID | undefined): DigestAlgorithm {
  return digest?.startsWith('sha512:') ? 'sha512' : 'sha256';
}

/** Returns the part after the colon: 64 lower-case hex digits for sha256, 128 for sha512. */
export function hexOf(digest: Digest | DiffID): string {
  return digest.slice(digest.indexOf(':') + 1);
}

/** Returns the first 12 digits of an image's or layer's id, as Docker shows it. */
export function shortID(id: string): string {
  return id.slice(0, 12);
}

/** Computes the digest of `bytes`. */
export function digestOf(bytes: Uint8Array, algorithm: DigestAlgorithm = 'sha256'): Digest {
  return Digest.parse(`${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`);
}

/** @throws IntegrityError that names `what` unless `bytes` have this digest */
export function verifyDigest(bytes: Uint8Array, digest: Digest, what: string): void {
  const found = digestOf(bytes, algorithmOf(digest));
  if (found === digest) return;
  throw new IntegrityError(`${what} has digest ${found} but must have ${digest}`, {
    code: 'DIGEST_MISMATCH',
  });
}
