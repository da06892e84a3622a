import { createHash, generateKeyPairSync, sign } from 'node:crypto';

const SIGNATURE_TYPE = 'application/vnd.dev.cosign.simplesigning.v1+json';
const BUNDLE_TYPE = 'application/vnd.dev.sigstore.bundle.v0.3+json';
const STATEMENT_TYPE = 'application/vnd.in-toto+json';

/** The repository that the signatures name. */
export const SIGNED_NAME = 'example.com/small';

/** Documents of a registry by their names in its addresses, and blobs by their digests. */
export interface Signatures {
  /** The public key in PEM. */
  readonly key: string;
  readonly manifests: ReadonlyMap<string, Buffer>;
  readonly referrers: Buffer;
  readonly blobs: ReadonlyMap<string, Buffer>;
}

const digestOf = (bytes: Buffer): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
const jsonOf = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

/**
 * Signs a manifest by a new key in the two forms of cosign: simple signing under a tag, and a bundle as
 * referrer.
 */
export function signManifest(digest: string): Signatures {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const signatureOf = (bytes: Buffer): string => sign('sha256', bytes, privateKey).toString('base64');
  const blobs = new Map<string, Buffer>();
  const blob = (mediaType: string, bytes: Buffer, annotations = {}) => {
    blobs.set(digestOf(bytes), bytes);
    return { mediaType, digest: digestOf(bytes), size: bytes.length, annotations };
  };
  const manifestOf = (layer: object, members: object): Buffer =>
    jsonOf({
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config: blob('application/vnd.oci.image.config.v1+json', jsonOf({})),
      layers: [layer],
      ...members,
    });
  const payload = jsonOf({
    critical: {
      identity: { 'docker-reference': SIGNED_NAME },
      image: { 'docker-manifest-digest': digest },
      type: 'cosign container image signature',
    },
    optional: null,
  });
  const annotations = { 'dev.cosignproject.cosign/signature': signatureOf(payload) };
  const tagged = manifestOf(blob(SIGNATURE_TYPE, payload, annotations), {});
  const statement = jsonOf({
    _type: 'https://in-toto.io/Statement/v1',
    subject: [{ name: 'small', digest: { sha256: digest.slice('sha256:'.length) } }],
    predicateType: 'https://sigstore.dev/cosign/sign/v1',
    predicate: {},
  });
  // The signature covers this head and the payload: DSSE's version, and the type and payload with their
  // lengths.
  const head = `DSSEv1 ${STATEMENT_TYPE.length} ${STATEMENT_TYPE} ${statement.length} `;
  const bundle = jsonOf({
    mediaType: BUNDLE_TYPE,
    verificationMaterial: { publicKey: { hint: 'hint' }, tlogEntries: [] },
    dsseEnvelope: {
      payload: statement.toString('base64'),
      payloadType: STATEMENT_TYPE,
      signatures: [{ sig: signatureOf(Buffer.concat([Buffer.from(head), statement])), keyid: '' }],
    },
  });
  const referrer = manifestOf(blob(BUNDLE_TYPE, bundle), { artifactType: BUNDLE_TYPE });
  const listed = {
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    digest: digestOf(referrer),
    size: referrer.length,
    artifactType: BUNDLE_TYPE,
  };
  return {
    key: String(publicKey.export({ type: 'spki', format: 'pem' })),
    manifests: new Map([
      [`${digest.replace(':', '-')}.sig`, tagged],
      [digestOf(referrer), referrer],
    ]),
    referrers: jsonOf({
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.index.v1+json',
      manifests: [listed],
    }),
    blobs,
  };
}
