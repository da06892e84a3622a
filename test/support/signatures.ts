import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import type { FakeRegistry } from './fake-registry.ts';
import { mediaTypes, sha256 } from './fake-image.ts';
import { envelopeOf } from './sigstore.ts';

export const SIGNATURE_PREDICATE = 'https://sigstore.dev/cosign/sign/v1';
export const BUNDLE_TYPE = 'application/vnd.dev.sigstore.bundle.v0.3+json';
const SIMPLE_SIGNING_TYPE = 'application/vnd.dev.cosign.simplesigning.v1+json';
const COSIGN_ARTIFACT_TYPE = 'application/vnd.dev.cosign.artifact.sig.v1+json';
export const SIGNATURE_ANNOTATION = 'dev.cosignproject.cosign/signature';

/** A key pair; `pem` is the content of cosign.pub. */
export interface SigningKey {
  readonly privateKey: KeyObject;
  readonly pem: string;
}

export function signingKey(kind: 'p256' | 'p384' | 'ed25519' | 'rsa' = 'p256'): SigningKey {
  const { privateKey, publicKey } = {
    p256: () => generateKeyPairSync('ec', { namedCurve: 'prime256v1' }),
    p384: () => generateKeyPairSync('ec', { namedCurve: 'secp384r1' }),
    ed25519: () => generateKeyPairSync('ed25519'),
    rsa: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  }[kind]();
  return { privateKey, pem: String(publicKey.export({ type: 'spki', format: 'pem' })) };
}

/** Returns the payload of simple signing in cosign's format. */
export function simpleSigning(digest: string, reference = 'example.com/app'): string {
  return JSON.stringify({
    critical: {
      identity: { 'docker-reference': reference },
      image: { 'docker-manifest-digest': digest },
      type: 'cosign container image signature',
    },
    optional: null,
  });
}

/** Returns an in-toto statement about manifests. */
export function statement(digest: string, predicateType = SIGNATURE_PREDICATE): string {
  const [algorithm = '', hex = ''] = digest.split(':');
  return JSON.stringify({
    _type: 'https://in-toto.io/Statement/v1',
    subject: [{ name: 'example.com/app', digest: { [algorithm]: hex } }],
    predicateType,
    predicate: {},
  });
}

/** Returns a bundle signed by a key, in the format of `cosign sign --new-bundle-format --key`. */
export function keyBundle(key: SigningKey, text: string): string {
  const { envelope } = envelopeOf(text, 'application/vnd.in-toto+json', key);
  return JSON.stringify({
    mediaType: BUNDLE_TYPE,
    verificationMaterial: { publicKey: { hint: 'hint' }, tlogEntries: [] },
    dsseEnvelope: envelope,
  });
}

/** Returns the annotation with a key's signature of the bytes. */
export function signedBy(key: SigningKey, payload: string): Record<string, string> {
  const hash = key.privateKey.asymmetricKeyType === 'ed25519' ? null : 'sha256';
  return { [SIGNATURE_ANNOTATION]: sign(hash, Buffer.from(payload), key.privateKey).toString('base64') };
}

/** A layer in a manifest of signatures. */
export interface FakeSignature {
  readonly payload: string | Uint8Array;
  readonly annotations: Readonly<Record<string, string>>;
  readonly mediaType?: string;
}

/** Returns a payload with a key's signature. */
export function simpleSignature(key: SigningKey, payload: string): FakeSignature {
  return { payload, annotations: signedBy(key, payload) };
}

/** Stores signatures under the tag that cosign uses. */
export function tagSignatures(
  registry: FakeRegistry,
  repository: string,
  digest: string,
  ...signatures: readonly FakeSignature[]
): void {
  const manifest = artifact(registry, repository, mediaTypes.oci.config, SIMPLE_SIGNING_TYPE, signatures);
  registry.putManifest(repository, `${digest.replace(':', '-')}.sig`, manifest);
}

/** Stores signatures of an image as one referrer; returns its digest. */
export function attachSignatures(
  registry: FakeRegistry,
  repository: string,
  digest: string,
  ...signatures: readonly FakeSignature[]
): string {
  const options = { artifactType: COSIGN_ARTIFACT_TYPE, subject: digest };
  const manifest = artifact(
    registry,
    repository,
    COSIGN_ARTIFACT_TYPE,
    SIMPLE_SIGNING_TYPE,
    signatures,
    options,
  );
  return registry.putManifest(repository, undefined, manifest);
}

/** Stores a bundle of an image as a referrer; returns its digest. */
export function attachBundle(
  registry: FakeRegistry,
  repository: string,
  digest: string,
  bundle: string,
  annotations: Readonly<Record<string, string>> = {},
): string {
  const signature = { payload: bundle, annotations: {} };
  const options = { artifactType: BUNDLE_TYPE, subject: digest, annotations };
  const empty = 'application/vnd.oci.empty.v1+json';
  const manifest = artifact(registry, repository, empty, BUNDLE_TYPE, [signature], options);
  return registry.putManifest(repository, undefined, manifest);
}

function artifact(
  registry: FakeRegistry,
  repository: string,
  configType: string,
  layerType: string,
  signatures: readonly FakeSignature[],
  { subject, ...members }: { readonly subject?: string; readonly [name: string]: unknown } = {},
): { readonly mediaType: string; readonly bytes: Uint8Array } {
  const config = Buffer.from('{}');
  registry.putBlob(repository, config);
  const layers = signatures.map(({ payload, annotations, mediaType = layerType }) => {
    const bytes = Buffer.from(payload);
    return { mediaType, size: bytes.length, digest: registry.putBlob(repository, bytes), annotations };
  });
  const document = {
    schemaVersion: 2,
    mediaType: mediaTypes.oci.manifest,
    config: { mediaType: configType, size: config.length, digest: sha256(config) },
    layers,
    ...(subject !== undefined && {
      subject: { mediaType: mediaTypes.oci.manifest, size: 1, digest: subject },
    }),
    ...members,
  };
  return { mediaType: mediaTypes.oci.manifest, bytes: Buffer.from(JSON.stringify(document)) };
}
