import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import { printable, UsageError } from '../errors.ts';
import { readNamedFile } from '../sys/config-files.ts';
import { reasonOf } from '../sys/os-error.ts';

/** A public key, and its name in messages. */
export interface PublicKey {
  readonly name: string;
  readonly key: KeyObject;
}

const MIN_RSA_BITS = 2048;
const MAX_RSA_BITS = 16_384;

/** Hashes of ECDSA by curve: cosign and skopeo sign with SHA-256, by any key. */
const CURVES: Readonly<Record<string, readonly string[]>> = {
  prime256v1: ['sha256'],
  secp384r1: ['sha256', 'sha384'],
  secp521r1: ['sha256', 'sha512'],
};

const KEY_HINT = 'name the public key of the signer, as cosign.pub';

/** @throws UsageError */
export async function readPublicKey(file: string, signal?: AbortSignal): Promise<PublicKey> {
  return parsePublicKey(await readNamedFile(file, 'the key', KEY_HINT, signal), file);
}

/** A block of PEM or of OpenPGP's armor. Its body has no five dashes, so that the search takes linear time. */
const ARMORED = /-----BEGIN (?<label>[A-Z0-9 ]+)-----(?<body>[^-]*(?:-{1,4}[^-]+)*)-----END \k<label>-----/g;

/** Returns the blocks of a text in PEM (RFC 7468) or OpenPGP's armor, one after another. */
export function armoredBlocks(
  text: string,
): readonly { readonly whole: string; readonly label: string; readonly body: string }[] {
  return [...text.matchAll(ARMORED)].map(({ 0: whole, groups }) => ({
    whole,
    label: groups!['label']!,
    body: groups!['body']!,
  }));
}

/**
 * Parses a public key in PEM: ECDSA, Ed25519, or RSA of 2048 to 16,384 bits.
 *
 * @throws UsageError
 */
export function parsePublicKey(text: string, name: string): PublicKey {
  const [block] = armoredBlocks(text);
  const refuse = (reason: string): UsageError =>
    new UsageError(`cannot use the key ${printable(name)}: ${reason}`, { hint: KEY_HINT });
  if (block === undefined) throw refuse('it has no key in PEM');
  if (block.label !== 'PUBLIC KEY' && block.label !== 'RSA PUBLIC KEY')
    throw refuse(`it is no public key (${block.label})`);
  let key: KeyObject;
  try {
    key = createPublicKey({ key: block.whole, format: 'pem' });
  } catch (error) {
    throw refuse(`it is malformed: ${printable(reasonOf(error), 120)}`);
  }
  const { namedCurve = '', modulusLength = 0 } = key.asymmetricKeyDetails ?? {};
  const { asymmetricKeyType: type } = key;
  const isUsable =
    type === 'ed25519' ||
    (type === 'ec' && Object.hasOwn(CURVES, namedCurve)) ||
    (type === 'rsa' && modulusLength >= MIN_RSA_BITS && modulusLength <= MAX_RSA_BITS);
  if (isUsable) return { name, key };
  throw refuse(`keys of type ${type} ${namedCurve || modulusLength || ''} cannot verify signatures`);
}

/**
 * True if the signature of these bytes is by the key, in the format of cosign: ECDSA in ASN.1, RSA by PKCS #1
 * 1.5, or Ed25519.
 */
export function isSignedBy({ key }: PublicKey, bytes: Uint8Array, signature: Uint8Array): boolean {
  const { namedCurve = '' } = key.asymmetricKeyDetails ?? {};
  const hashes = key.asymmetricKeyType === 'ed25519' ? [null] : (CURVES[namedCurve] ?? ['sha256']);
  try {
    return hashes.some((hash) => verify(hash, bytes, key, signature));
  } catch {
    return false;
  }
}
