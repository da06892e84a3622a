import { execFileSync } from 'node:child_process';
import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { file, tar } from './archive.ts';
import type { DockerRegistry } from './docker-registry.ts';
import type { Scratch } from './program.ts';
import { simpleSigning } from './signatures.ts';

const ISSUER = 'https://provider.example';
const EMAIL = 'signer@example.com';

/**
 * Makes, by openssl, an authority with an intermediate one, and a log, as `fulcio` of a policy names them.
 */
export class PolicySigstore {
  readonly #scratch: Scratch;
  readonly #log = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });

  constructor(scratch: Scratch) {
    this.#scratch = scratch;
    mkdirSync(this.#join());
    for (const name of ['root', 'other']) this.#authority(name);
    this.#authority('intermediate', 'root');
  }

  /** The certificate of another authority, in base64. */
  get otherAuthority(): string {
    return readFileSync(this.#join('other.crt')).toString('base64');
  }

  /** Returns a requirement for the identity. */
  rule(fulcio: object, rekorPublicKeyData?: string): object {
    const log = String(this.#log.publicKey.export({ type: 'spki', format: 'pem' }));
    return {
      type: 'sigstoreSigned',
      fulcio: {
        caData: readFileSync(this.#join('root.crt')).toString('base64'),
        oidcIssuer: ISSUER,
        subjectEmail: EMAIL,
        ...fulcio,
      },
      rekorPublicKeyData: rekorPublicKeyData ?? Buffer.from(log).toString('base64'),
      signedIdentity: { type: 'matchRepository' },
    };
  }

  /** Pushes an image with a signature under the tag of cosign. */
  async push(registry: DockerRegistry, repository: string): Promise<void> {
    const image = { layers: [{ tar: tar(file('etc/motd', 'hello')) }] };
    const { digest } = await registry.push(repository, 'latest', image);
    const payload = Buffer.from(simpleSigning(digest, `${registry.host}/${repository}`));
    await registry.pushSignature(repository, digest, payload, this.#annotations(payload));
  }

  #annotations(payload: Buffer): Record<string, string> {
    const certificate = this.#leaf();
    const signature = sign('sha256', payload, readFileSync(this.#join('leaf.key'), 'utf8')).toString(
      'base64',
    );
    const body = {
      apiVersion: '0.0.1',
      kind: 'hashedrekord',
      spec: {
        data: { hash: { algorithm: 'sha256', value: createHash('sha256').update(payload).digest('hex') } },
        signature: {
          content: signature,
          publicKey: { content: Buffer.from(certificate).toString('base64') },
        },
      },
    };
    const logKey = this.#log.publicKey.export({ type: 'spki', format: 'der' });
    // The members are sorted by name: the canonical form.
    const entry = {
      body: Buffer.from(JSON.stringify(body)).toString('base64'),
      integratedTime: Math.floor(Date.now() / 1000),
      logID: createHash('sha256').update(logKey).digest('hex'),
      logIndex: 1,
    };
    const promise = sign('sha256', Buffer.from(JSON.stringify(entry)), this.#log.privateKey);
    const chain = ['intermediate', 'root'].map((name) => readFileSync(this.#join(`${name}.crt`), 'utf8'));
    return {
      'dev.cosignproject.cosign/signature': signature,
      'dev.sigstore.cosign/certificate': certificate,
      'dev.sigstore.cosign/chain': chain.join(''),
      'dev.sigstore.cosign/bundle': JSON.stringify({
        SignedEntryTimestamp: promise.toString('base64'),
        Payload: entry,
      }),
    };
  }

  #authority(name: string, by?: string): void {
    const extensions = ['basicConstraints=critical,CA:TRUE', 'keyUsage=critical,keyCertSign'];
    this.#certify(name, extensions, by);
  }

  #leaf(): string {
    const issuer = [...Buffer.from(ISSUER)].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
    const extensions = [
      'keyUsage=critical,digitalSignature',
      'extendedKeyUsage=codeSigning',
      `subjectAltName=critical,email:${EMAIL}`,
      `1.3.6.1.4.1.57264.1.1=DER:${issuer}`,
    ];
    this.#certify('leaf', extensions, 'intermediate');
    return readFileSync(this.#join('leaf.crt'), 'utf8');
  }

  #certify(name: string, extensions: readonly string[], by?: string): void {
    const out = ['-keyout', this.#join(`${name}.key`), '-out', this.#join(`${name}.crt`)];
    const issuer =
      by === undefined ? [] : ['-CA', this.#join(`${by}.crt`), '-CAkey', this.#join(`${by}.key`)];
    const added = extensions.flatMap((extension) => ['-addext', extension]);
    writeFileSync(this.#join('openssl.cnf'), '[req]\ndistinguished_name=dn\n[dn]\n');
    const subject = name === 'leaf' ? '/' : `/CN=${name}`;
    const kind = [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-days',
      '1',
    ];
    const config = ['-config', this.#join('openssl.cnf'), '-subj', subject];
    execFileSync('openssl', [...kind, ...config, ...out, ...issuer, ...added], { stdio: 'pipe' });
  }

  #join(...parts: readonly string[]): string {
    return this.#scratch.join('policy-sigstore', ...parts);
  }
}
