import { type Bundle, bundleFromJSON, isBundleWithDsseEnvelope } from '@sigstore/bundle';
import { printable } from '../errors.ts';
import { Digest, digestFault } from '../oci/digest.ts';
import { isObject, parseJson, parseJsonObject } from '../oci/json.ts';
import { Refusal } from './refusal.ts';

/** The predicate of a statement that is a signature and no other attestation: cosign's BUNDLE_SPEC.md. */
export const SIGNATURE_PREDICATE = 'https://sigstore.dev/cosign/sign/v1';

const STATEMENT_TYPE = /^https:\/\/in-toto\.io\/Statement\/v(?:0\.1|1)$/;
const PAYLOAD_TYPE = 'application/vnd.in-toto+json';

/** Limit on log entries, and on time stamps, of a bundle; real ones have one of each. */
const MAX_PROOFS = 16;

/** A Sigstore bundle with a DSSE envelope, which is not verified yet. */
export interface SignatureBundle {
  readonly bundle: Bundle;
  /** The signed bytes: the envelope's pre-authentication encoding. */
  readonly signedBytes: Uint8Array;
  readonly signature: Uint8Array;
  /** The in-toto statement. */
  readonly statement: Uint8Array;
}

/**
 * Parses a bundle of version 0.3; verifies nothing.
 *
 * @throws Refusal, and errors of any kind for malformed bytes
 */
export function parseBundle(bytes: Uint8Array): SignatureBundle {
  const bundle = bundleFromJSON(parseJson(bytes, 'the bundle'));
  if (!isBundleWithDsseEnvelope(bundle)) throw new Refusal('the bundle has no DSSE envelope');
  const { tlogEntries, timestampVerificationData } = bundle.verificationMaterial;
  const stamps = timestampVerificationData?.rfc3161Timestamps ?? [];
  if (tlogEntries.length > MAX_PROOFS || stamps.length > MAX_PROOFS)
    throw new Refusal(`the bundle has more than ${MAX_PROOFS} log entries or time stamps`);
  const { payload, payloadType, signatures } = bundle.content.dsseEnvelope;
  if (payloadType !== PAYLOAD_TYPE)
    throw new Refusal(`the envelope holds ${printable(payloadType, 80)}, no in-toto statement`);
  return {
    bundle,
    signedBytes: preAuthenticationEncoding(payloadType, payload),
    signature: signatures[0]!.sig,
    statement: payload,
  };
}

/** Returns the bytes that DSSE signs (its protocol.md). */
function preAuthenticationEncoding(type: string, payload: Uint8Array): Uint8Array {
  const head = `DSSEv1 ${Buffer.byteLength(type)} ${type} ${payload.length} `;
  return Buffer.concat([Buffer.from(head), payload]);
}

/**
 * Returns the manifests that a verified statement signs.
 *
 * @throws Refusal for a statement that is no signature; IntegrityError if it is malformed
 */
export function signedManifests(statement: Uint8Array): Digest[] {
  const { _type: type, predicateType, subject } = parseJsonObject(statement, 'the statement');
  if (typeof type !== 'string' || !STATEMENT_TYPE.test(type))
    throw new Refusal('the envelope holds no in-toto statement');
  if (predicateType !== SIGNATURE_PREDICATE) {
    const shown = printable(typeof predicateType === 'string' ? predicateType : 'none', 120);
    throw new Refusal(`it is no signature but an attestation of type ${shown}`);
  }
  if (!Array.isArray(subject)) throw new Refusal('the statement has no subject');
  return subject.flatMap((entry: unknown) => {
    const digests = isObject(entry) && isObject(entry['digest']) ? Object.entries(entry['digest']) : [];
    return digests
      .map(([algorithm, hex]) => `${algorithm}:${String(hex)}`)
      .filter((text) => digestFault(text) === undefined)
      .map((text) => Digest.parse(text));
  });
}
