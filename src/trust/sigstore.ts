import type { KeyObject } from 'node:crypto';
import { type Bundle, bundleFromJSON } from '@sigstore/bundle';
import { type SignedEntity, toSignedEntity, type TrustMaterial, Verifier } from '@sigstore/verify';
import { digestOf, hexOf } from '../oci/digest.ts';
import { isObject, parseJsonObject } from '../oci/json.ts';
import { Refusal } from './refusal.ts';
import type { Signature } from './search.ts';

export type SimpleSignature = Extract<Signature, { form: 'simple' }>;

const SIGNATURE_ANNOTATION = 'dev.cosignproject.cosign/signature';
const CERTIFICATE_ANNOTATION = 'dev.sigstore.cosign/certificate';
const CHAIN_ANNOTATION = 'dev.sigstore.cosign/chain';
const REKOR_BUNDLE_ANNOTATION = 'dev.sigstore.cosign/bundle';
export const TIME_STAMP_ANNOTATION = 'dev.sigstore.cosign/rfc3161timestamp';

/**
 * Returns the bytes of the signature.
 *
 * @throws Refusal
 */
export function signatureBytes({ annotations }: SimpleSignature): Buffer {
  const text = annotations[SIGNATURE_ANNOTATION];
  if (text !== undefined && /^[A-Za-z0-9+/]+={0,2}$/.test(text)) return Buffer.from(text, 'base64');
  throw new Refusal(`it has no ${SIGNATURE_ANNOTATION} in base64`);
}

/** The owner that a certificate names, and its key. */
export interface CertifiedSigner {
  readonly subject: string | undefined;
  readonly issuer: string | undefined;
  readonly key: KeyObject;
}

/**
 * Verifies signature, certificate, log entries and time stamps of a bundle. A log entry is required if the
 * trust material has a log, an SCT in the certificate if it has a certificate log.
 *
 * @param payload the signed bytes, unless the bundle has them
 * @throws errors of any kind
 */
export function verifyCertified(
  bundle: Bundle,
  material: TrustMaterial,
  payload?: Uint8Array,
): CertifiedSigner {
  const { key, identity } = verifierFor(material).verify(signedEntityOf(bundle, payload));
  if (!identity) throw new Refusal('it was made with a key, not by an identity');
  return { subject: identity.subjectAlternativeName, issuer: identity.extensions?.issuer, key };
}

/**
 * Verifies a signature by a key of the trust material, and the required entry of it in a log.
 *
 * @throws errors of any kind
 */
export function verifyLogged(bundle: Bundle, material: TrustMaterial, payload: Uint8Array): void {
  verifierFor(material).verify(signedEntityOf(bundle, payload));
}

/**
 * Parses certificate, log entries and time stamps of a bundle. The time of a stamp may have a fraction of any
 * number of digits (RFC 3161, 2.4.2); @sigstore/core 4.0 reads none or three. Its bytes stay as they were
 * signed.
 */
function signedEntityOf(bundle: Bundle, payload?: Uint8Array): SignedEntity {
  const entity = toSignedEntity(bundle, payload && Buffer.from(payload));
  for (const proof of entity.timestamps) {
    if (proof.$case !== 'timestamp-authority') continue;
    const { timestamp } = proof;
    const signingTime = { get: () => timeOf(timestamp.tstInfo.root.subs[4]!.value) };
    Object.defineProperty(timestamp, 'signingTime', signingTime);
  }
  return entity;
}

/**
 * Returns the time of a stamp, without the fraction of its second.
 *
 * @param value a GeneralizedTime in DER (X.690, 11.7)
 */
function timeOf(value: Buffer): Date {
  const fields = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:\.\d+)?Z$/.exec(value.toString('latin1'));
  if (!fields) throw new Refusal('its time stamp has no valid time');
  const [, year, month, day, hour, minute, second] = fields;
  return new Date(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
}

function verifierFor(material: TrustMaterial): Verifier {
  return new Verifier(material, {
    tlogThreshold: material.tlogs.length > 0 ? 1 : 0,
    ctlogThreshold: material.ctlogs.length > 0 ? 1 : 0,
    timestampThreshold: 1,
  });
}

/**
 * Returns the certificate in cosign's annotations, and the intermediate ones, in PEM.
 *
 * @throws Refusal without a certificate
 */
export function certificatesOf({ annotations }: SimpleSignature): {
  readonly certificate: string;
  readonly chain: readonly string[];
} {
  const [certificate] = pemCertificates(annotations[CERTIFICATE_ANNOTATION] ?? '');
  if (certificate === undefined) throw new Refusal('it has no certificate: it was made with a key');
  return { certificate, chain: pemCertificates(annotations[CHAIN_ANNOTATION] ?? '') };
}

/** Returns the certificates in a text, in PEM. */
export function pemCertificates(text: string): string[] {
  return text.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
}

/** Returns the bytes of a certificate in PEM, as base64. */
export function certificateBytes(pem: string): string {
  return pem.replaceAll(/-----[A-Z ]+-----|\s/g, '');
}

/**
 * Makes a bundle of cosign's annotations: certificate, log entry and time stamp (SIGNATURE_SPEC.md).
 *
 * @param hint names a key of the trust material, for a signature by a key
 * @throws Refusal without a certificate, and errors of any kind for malformed annotations
 */
export function bundleOfAnnotations(signature: SimpleSignature, hint?: string): Bundle {
  const { annotations, payload } = signature;
  const signer =
    hint === undefined
      ? {
          x509CertificateChain: {
            certificates: [{ rawBytes: certificateBytes(certificatesOf(signature).certificate) }],
          },
        }
      : { publicKey: { hint } };
  return bundleFromJSON({
    // Later versions of bundles have no chains of certificates.
    mediaType: 'application/vnd.dev.sigstore.bundle+json;version=0.1',
    verificationMaterial: {
      ...signer,
      tlogEntries: logEntries(annotations),
      timestampVerificationData: { rfc3161Timestamps: timeStamps(annotations) },
    },
    messageSignature: {
      messageDigest: {
        algorithm: 'SHA2_256',
        digest: Buffer.from(hexOf(digestOf(payload)), 'hex').toString('base64'),
      },
      signature: signatureBytes(signature).toString('base64'),
    },
  });
}

function logEntries(annotations: SimpleSignature['annotations']): object[] {
  const text = annotations[REKOR_BUNDLE_ANNOTATION];
  if (text === undefined) return [];
  const { SignedEntryTimestamp: promise, Payload: entry } = parseJsonObject(
    Buffer.from(text),
    REKOR_BUNDLE_ANNOTATION,
  );
  if (!isObject(entry) || typeof entry['body'] !== 'string' || typeof entry['logID'] !== 'string')
    throw new Refusal(`${REKOR_BUNDLE_ANNOTATION} has no log entry`);
  const { kind, apiVersion } = parseJsonObject(Buffer.from(entry['body'], 'base64'), 'the log entry');
  return [
    {
      logIndex: String(entry['logIndex']),
      logId: { keyId: Buffer.from(entry['logID'], 'hex').toString('base64') },
      kindVersion: { kind, version: apiVersion },
      integratedTime: String(entry['integratedTime']),
      inclusionPromise: { signedEntryTimestamp: promise },
      canonicalizedBody: entry['body'],
    },
  ];
}

function timeStamps(annotations: SimpleSignature['annotations']): object[] {
  const text = annotations[TIME_STAMP_ANNOTATION];
  if (text === undefined) return [];
  const { SignedRFC3161Timestamp: stamp } = parseJsonObject(Buffer.from(text), TIME_STAMP_ANNOTATION);
  return [{ signedTimestamp: stamp }];
}
