import { createHash, X509Certificate } from 'node:crypto';
import { TrustedRoot } from '@sigstore/protobuf-specs';
import { toTrustMaterial, type TrustMaterial } from '@sigstore/verify';
import type { PublicKey } from './keys.ts';
import { Refusal } from './refusal.ts';
import {
  bundleOfAnnotations,
  certificateBytes,
  certificatesOf,
  pemCertificates,
  type SimpleSignature,
  TIME_STAMP_ANNOTATION,
  verifyCertified,
  verifyLogged,
} from './sigstore.ts';

/** The identity that a certificate must name, and its issuers. */
export interface CertificateRule {
  /** One or more certificates in PEM. */
  readonly authorities: string;
  readonly issuer: string;
  readonly email: string;
}

/** Limit on the certificates in the chain of a signature. */
const MAX_CHAIN = 10;
const CODE_SIGNING = '1.3.6.1.5.5.7.3.3';
const ALWAYS = { start: '1970-01-01T00:00:00Z' };

/**
 * Verifies a signature by an identity, and its entry in a log, as containers/image does for `fulcio`.
 *
 * @throws errors of any kind
 */
export function requireCertified(
  given: SimpleSignature,
  { authorities, issuer, email }: CertificateRule,
  logKeys: readonly PublicKey[],
): void {
  const signature = withoutTimeStamp(given);
  const { certificate, chain } = certificatesOf(signature);
  const leaf = new X509Certificate(certificate);
  const trusted = pemCertificates(authorities);
  if (trusted.length === 0) throw new Error('the file with the authorities of the policy has no certificate');
  const material = materialOf(trustedWith(trusted, chain), logKeys);
  const signer = verifyCertified(bundleOfAnnotations(signature), material, signature.payload);
  requireCodeSigning(leaf);
  if (signer.issuer !== issuer)
    throw new Refusal(`its certificate is by the provider ${signer.issuer}, not ${issuer}`);
  if (!(leaf.subjectAltName ?? '').split(', ').includes(`email:${email}`))
    throw new Refusal(`its certificate is for ${leaf.subjectAltName}, not for email:${email}`);
}

/**
 * Verifies that a log has an entry of a signature by a key.
 *
 * @throws errors of any kind
 */
export function requireLogged(given: SimpleSignature, key: PublicKey, logKeys: readonly PublicKey[]): void {
  const signature = withoutTimeStamp(given);
  verifyLogged(bundleOfAnnotations(signature, key.name), materialOf([], logKeys, key), signature.payload);
}

/** Removes the time stamp: containers/image ignores it, and a policy names no authority for it. */
function withoutTimeStamp(signature: SimpleSignature): SimpleSignature {
  const annotations = Object.entries(signature.annotations).filter(
    ([name]) => name !== TIME_STAMP_ANNOTATION,
  );
  return { ...signature, annotations: Object.fromEntries(annotations) };
}

/**
 * Returns the authorities of a policy, and those certificates of the chain that they issued, directly or not.
 */
function trustedWith(authorities: readonly string[], chain: readonly string[]): readonly string[] {
  if (chain.length > MAX_CHAIN) throw new Refusal(`it brings a chain of ${chain.length} certificates`);
  const trusted = authorities.map((pem) => new X509Certificate(pem));
  const left = new Set(chain.map((pem) => new X509Certificate(pem)));
  for (let before = -1; before !== left.size;) {
    before = left.size;
    for (const each of left) {
      if (!each.ca || !trusted.some((one) => one.ca && each.checkIssued(one) && each.verify(one.publicKey)))
        continue;
      if (each.keyUsage !== undefined) requireCodeSigning(each);
      trusted.push(each);
      left.delete(each);
    }
  }
  return trusted.map(String);
}

/** @throws Refusal unless the certificate is for code signing; `keyUsage` of Node is the extended one */
function requireCodeSigning({ keyUsage }: X509Certificate): void {
  if (!(keyUsage as readonly string[] | undefined)?.includes(CODE_SIGNING))
    throw new Refusal('its certificate, or one of the chain, is not for signing code');
}

function materialOf(
  authorities: readonly string[],
  logKeys: readonly PublicKey[],
  key?: PublicKey,
): TrustMaterial {
  const root = TrustedRoot.fromJSON({
    mediaType: 'application/vnd.dev.sigstore.trustedroot+json;version=0.1',
    certificateAuthorities:
      authorities.length === 0
        ? []
        : [
            {
              certChain: { certificates: authorities.map((pem) => ({ rawBytes: certificateBytes(pem) })) },
              validFor: ALWAYS,
            },
          ],
    tlogs: logKeys.map(logOf),
    ctlogs: [],
    timestampAuthorities: [],
  });
  return toTrustMaterial(root, key && (() => ({ publicKey: key.key, validFor: () => true })));
}

function logOf({ key, name }: PublicKey): object {
  if (key.asymmetricKeyType !== 'ec') throw new Error(`the key of the log, ${name}, is not for ECDSA`);
  const bytes = key.export({ type: 'spki', format: 'der' });
  return {
    publicKey: {
      rawBytes: bytes.toString('base64'),
      keyDetails: 'PKIX_ECDSA_P256_SHA_256',
      validFor: ALWAYS,
    },
    logId: { keyId: createHash('sha256').update(bytes).digest('base64') },
  };
}
