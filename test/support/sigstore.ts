import { createHash, generateKeyPairSync, type KeyPairKeyObjectResult, sign } from 'node:crypto';
import { initializeCA, initializeCTLog, initializeTLog, initializeTSA } from '@sigstore/mock';

const keyPair = (): KeyPairKeyObjectResult => generateKeyPairSync('ec', { namedCurve: 'prime256v1' });

/** The extension of Fulcio's certificates with the provider that vouches for the subject. */
const ISSUER_OID = '1.3.6.1.4.1.57264.1.8';

/** An identity, and the provider that vouches for it. */
export interface FakeIdentity {
  readonly subject: string;
  readonly issuer: string;
}

export interface BundleOptions {
  readonly payloadType?: string;
  /** The log's entry is for this statement instead. */
  readonly logged?: string;
  /**
   * Digits of a fraction of a second. The entry has a time stamp of the authority with this fraction, and no
   * promise of the log, as with Rekor 2.
   */
  readonly timeStamp?: string;
  /** Shifts the times by this many minutes: a certificate is valid for ten. */
  readonly minutesLate?: number;
}

const chain = (...certificates: ArrayBufferView<ArrayBuffer>[]) => ({
  certificates: certificates.map((each) => ({ rawBytes: Buffer.from(each.buffer).toString('base64') })),
});

/** The used part of an answer of Rekor's API. */
interface LogEntry {
  readonly body: string;
  readonly integratedTime: number;
  readonly logID: string;
  readonly logIndex: number;
  readonly verification: {
    readonly signedEntryTimestamp: string;
    readonly inclusionProof: {
      readonly logIndex: number;
      readonly rootHash: string;
      readonly treeSize: number;
      readonly checkpoint: string;
    };
  };
}

const days = (number: number): Date => new Date(Date.now() + number * 86_400_000);

/** Certificate authority, logs and time stamps of a private Sigstore (@sigstore/mock). */
export class FakeSigstore {
  readonly #ca;
  readonly #ctlog;
  readonly #tlogKeys;
  readonly #tsa;

  private constructor(
    ca: Awaited<ReturnType<typeof initializeCA>>,
    ctlog: Awaited<ReturnType<typeof initializeCTLog>> | undefined,
    tlogKeys: KeyPairKeyObjectResult,
    tsa: Awaited<ReturnType<typeof initializeTSA>>,
  ) {
    this.#ca = ca;
    this.#ctlog = ctlog;
    this.#tlogKeys = tlogKeys;
    this.#tsa = tsa;
  }

  /** @param logsCertificates if certificates are logged, too */
  static async start(logsCertificates = true): Promise<FakeSigstore> {
    const ctlog = logsCertificates ? await initializeCTLog(keyPair()) : undefined;
    const ca = await initializeCA(keyPair(), ctlog);
    return new FakeSigstore(ca, ctlog, keyPair(), await initializeTSA(keyPair()));
  }

  /** The public key of the log in PEM. */
  get logKey(): string {
    return String(this.#tlogKeys.publicKey.export({ type: 'spki', format: 'pem' }));
  }

  /** The root of the certificates in PEM. */
  get root(): string {
    return pem(Buffer.from(this.#ca.rootCertificate.buffer));
  }

  /** The public key of the certificates' log in PEM. */
  get certificateLogKey(): string {
    const base64 = this.#ctlog!.publicKey.toString('base64').replaceAll(/(.{64})/g, '$1\n');
    return `-----BEGIN PUBLIC KEY-----\n${base64}\n-----END PUBLIC KEY-----\n`;
  }

  /** The content of trusted_root.json. */
  trustedRoot(): string {
    const validFor = { start: days(-1).toISOString() };
    const key = (bytes: Uint8Array) => ({
      rawBytes: Buffer.from(bytes).toString('base64'),
      keyDetails: 'PKIX_ECDSA_P256_SHA_256',
      validFor,
    });
    const logKey = this.#tlogKeys.publicKey.export({ type: 'spki', format: 'der' });
    const root = {
      mediaType: 'application/vnd.dev.sigstore.trustedroot+json;version=0.1',
      tlogs: [
        {
          baseUrl: 'https://rekor.sigstore.dev',
          hashAlgorithm: 'SHA2_256',
          publicKey: key(logKey),
          logId: { keyId: createHash('sha256').update(logKey).digest('base64') },
        },
      ],
      certificateAuthorities: [
        {
          subject: { organization: 'sigstore.mock', commonName: 'sigstore' },
          uri: 'https://fulcio.sigstore.dev',
          certChain: chain(this.#ca.rootCertificate),
          validFor,
        },
      ],
      ctlogs: (this.#ctlog ? [this.#ctlog] : []).map(({ publicKey, logID }) => ({
        baseUrl: 'https://ctfe.sigstore.dev',
        hashAlgorithm: 'SHA2_256',
        publicKey: key(publicKey),
        logId: { keyId: Buffer.from(logID.buffer).toString('base64') },
      })),
      timestampAuthorities: [
        {
          subject: { organization: 'sigstore.mock', commonName: 'tsa' },
          uri: 'https://timestamp.sigstore.dev',
          certChain: chain(this.#tsa.intCertificate, this.#tsa.rootCertificate),
          validFor,
        },
      ],
    };
    return JSON.stringify(root);
  }

  async #certificate({
    subject,
    issuer,
  }: FakeIdentity): Promise<{ der: Buffer; keys: KeyPairKeyObjectResult }> {
    const keys = keyPair();
    const certificate = await this.#ca.issueCertificate({
      publicKey: keys.publicKey.export({ type: 'spki', format: 'der' }),
      subjectAltName: subject,
      extensions: [{ oid: ISSUER_OID, value: issuer }],
    });
    return { der: Buffer.from(certificate.buffer), keys };
  }

  /** Returns a bundle of version 0.3 with a DSSE envelope of the statement, signed by the identity. */
  async bundle(identity: FakeIdentity, statement: string, options: BundleOptions = {}): Promise<string> {
    const { payloadType = 'application/vnd.in-toto+json', timeStamp, minutesLate = 0 } = options;
    const { der, keys } = await this.#certificate(identity);
    const { envelope, signature } = envelopeOf(statement, payloadType, keys);
    const logged =
      options.logged === undefined ? { envelope } : envelopeOf(options.logged, payloadType, keys);
    const entry = await this.#log(
      {
        apiVersion: '0.0.1',
        kind: 'dsse',
        spec: {
          envelopeHash: sha256Of(JSON.stringify(logged.envelope)),
          payloadHash: sha256Of(Buffer.from(logged.envelope.payload, 'base64')),
          signatures: [{ signature: logged.envelope.signatures[0]!.sig, verifier: b64(pem(der)) }],
        },
      },
      minutesLate,
    );
    const { promise, ...tlogEntry } = entry;
    return JSON.stringify({
      mediaType: 'application/vnd.dev.sigstore.bundle.v0.3+json',
      verificationMaterial: {
        certificate: { rawBytes: der.toString('base64') },
        tlogEntries: [{ ...tlogEntry, ...(timeStamp === undefined && { inclusionPromise: promise }) }],
        timestampVerificationData: {
          rfc3161Timestamps:
            timeStamp === undefined ? [] : [{ signedTimestamp: await this.#timeStamp(signature, timeStamp) }],
        },
      },
      dsseEnvelope: envelope,
    });
  }

  /** Returns cosign's annotations of a payload that the identity has signed. */
  async annotations(
    identity: FakeIdentity,
    payload: string,
    minutesLate = 0,
  ): Promise<Record<string, string>> {
    const { der, keys } = await this.#certificate(identity);
    const signature = sign('sha256', Buffer.from(payload), keys.privateKey).toString('base64');
    const entry = await this.#log(
      {
        apiVersion: '0.0.1',
        kind: 'hashedrekord',
        spec: {
          data: { hash: sha256Of(payload) },
          signature: { content: signature, publicKey: { content: b64(pem(der)) } },
        },
      },
      minutesLate,
    );
    return {
      'dev.cosignproject.cosign/signature': signature,
      'dev.sigstore.cosign/certificate': pem(der),
      'dev.sigstore.cosign/chain': this.root,
      'dev.sigstore.cosign/bundle': JSON.stringify({
        SignedEntryTimestamp: entry.promise.signedEntryTimestamp,
        Payload: {
          body: entry.canonicalizedBody,
          integratedTime: Number(entry.integratedTime),
          logIndex: Number(entry.logIndex),
          logID: Buffer.from(entry.logId.keyId, 'base64').toString('hex'),
        },
      }),
    };
  }

  async #log(body: object, minutesLate: number) {
    const clock = new Date(Date.now() + minutesLate * 60_000);
    const tlog = await initializeTLog('https://rekor.sigstore.dev', this.#tlogKeys, clock);
    const [entry] = Object.values((await tlog.log(body)) as Readonly<Record<string, LogEntry>>);
    const { inclusionProof: proof, signedEntryTimestamp } = entry!.verification;
    const { kind, apiVersion } = body as { readonly kind: string; readonly apiVersion: string };
    return {
      logIndex: String(entry!.logIndex),
      logId: { keyId: Buffer.from(entry!.logID, 'hex').toString('base64') },
      kindVersion: { kind, version: apiVersion },
      integratedTime: String(entry!.integratedTime),
      promise: { signedEntryTimestamp: signedEntryTimestamp },
      inclusionProof: {
        logIndex: String(proof.logIndex),
        rootHash: Buffer.from(proof.rootHash, 'hex').toString('base64'),
        treeSize: String(proof.treeSize),
        hashes: [],
        checkpoint: { envelope: proof.checkpoint },
      },
      canonicalizedBody: entry!.body,
    };
  }

  /** Returns a time stamp of this second, with these digits as its fraction. */
  async #timeStamp(signature: Buffer, fraction: string): Promise<string> {
    const tsa = this.#tsa as unknown as StampMaker;
    const second = new Date().toISOString().replaceAll(/[-:T]|\..*/g, '');
    const time = fraction === '' ? `${second}Z` : `${second}.${fraction}Z`;
    const stamp = await tsa.timestamp.call(
      {
        __proto__: tsa,
        tstInfo: (request: object) => {
          const schema = tsa.tstInfo(request).toSchema();
          schema.valueBlock.value[4]!.valueBlock.valueHexView = Buffer.from(time);
          return { toSchema: () => schema };
        },
      },
      {
        artifactHash: createHash('sha256').update(signature).digest(),
        hashAlgorithmOID: '2.16.840.1.101.3.4.2.1',
        nonce: 1,
        policyOID: '1.3.6.1.4.1.57264.2',
        certReq: true,
      },
    );
    return Buffer.from(stamp.buffer).toString('base64');
  }
}

/** Replaces the mock's authority for stamps with other digits than those of a Date. */
interface StampMaker {
  timestamp(request: object): Promise<ArrayBufferView<ArrayBuffer>>;
  /** The sequence TSTInfo (RFC 3161, 2.4.2), whose fifth member is the time. */
  tstInfo(request: object): {
    toSchema(): { valueBlock: { value: { valueBlock: { valueHexView: Uint8Array } }[] } };
  };
}

function b64(text: string): string {
  return Buffer.from(text).toString('base64');
}

function sha256Of(bytes: string | Buffer): object {
  return { algorithm: 'sha256', value: createHash('sha256').update(bytes).digest('hex') };
}

function pem(der: Buffer): string {
  const lines = der.toString('base64').replaceAll(/(.{64})(?!$)/g, '$1\n');
  return `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`;
}

/** A DSSE envelope (protocol.md). */
export function envelopeOf(
  statement: string,
  payloadType: string,
  keys: Pick<KeyPairKeyObjectResult, 'privateKey'>,
) {
  const payload = Buffer.from(statement);
  const encoded = Buffer.concat([
    Buffer.from(`DSSEv1 ${Buffer.byteLength(payloadType)} ${payloadType} ${payload.length} `),
    payload,
  ]);
  const signature = sign('sha256', encoded, keys.privateKey);
  const signatures = [{ sig: signature.toString('base64'), keyid: '' }];
  return { signature, envelope: { payload: payload.toString('base64'), payloadType, signatures } };
}
