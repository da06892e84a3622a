import type { SecureContext } from 'node:tls';
import { UsageError, reasonOf } from '../../errors.ts';
import { certificateDirectory, type CertificateFiles } from '../config/certs-d.ts';
import { NoDataError, readConfigFile } from '../config/files.ts';
import type { RegistryOptions } from '../registry-options.ts';

/** What decides about the TLS connections made on behalf of one registry. */
export interface TlsSettings {
  /** PEM, beside the bundled and the system's authorities. */
  readonly authorities: readonly string[];
  /** PEM. */
  readonly clientCertificate?: { readonly cert: string; readonly key: string } | undefined;
  readonly verify: boolean;
  /** Somebody gave certificates for this registry: it speaks TLS. */
  readonly configured: boolean;
}

/** Of all authorities for one registry together. */
const MAX_AUTHORITIES_LENGTH = 16 * 1024 * 1024;

async function readPem(path: string, what: string, signal: AbortSignal | undefined): Promise<string> {
  try {
    return await readConfigFile(path, { named: true, signal });
  } catch (error) {
    signal?.throwIfAborted();
    throw new UsageError(`cannot read ${what}: ${reasonOf(error)}`, {
      hint: 'check the path, and whether you may read it',
      cause: error,
    });
  }
}

/** What is set for all programs on Node, and may well be meant for another root directory than this one: like Node, go on without. */
async function extraAuthorities({ environment, report, signal }: RegistryOptions): Promise<string[]> {
  const path = environment['NODE_EXTRA_CA_CERTS'];
  if (path === undefined || path === '') return [];
  try {
    return [await readPem(path, 'NODE_EXTRA_CA_CERTS', signal)];
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    // Node's TLS opens the file itself, and would wait for ever.
    if (error.cause instanceof NoDataError) throw error;
    report({ type: 'notice', message: `${error.message}; going on without it` });
    return [];
  }
}

/** Collects what options, environment and certs.d directories say about TLS with `registry` (`host[:port]`). */
export async function tlsSettings(
  registry: string,
  options: RegistryOptions,
  insecure: boolean,
): Promise<TlsSettings> {
  const found: CertificateFiles = await certificateDirectory(registry, options);
  const { caFile, certFile, keyFile, signal } = options;
  if ((certFile === undefined) !== (keyFile === undefined)) {
    throw new UsageError('a client certificate needs both --cert-file and --key-file', {
      hint: 'add the other one',
    });
  }
  const pair =
    certFile !== undefined && keyFile !== undefined
      ? { cert: certFile, key: keyFile }
      : found.clientCertificate;
  const own = [...(caFile === undefined ? [] : [caFile]), ...found.authorities];
  const authorities: string[] = [];
  let length = 0;
  for (const path of own) {
    const text = await readPem(path, 'a certificate authority', signal);
    authorities.push(text);
    length += text.length;
    if (length > MAX_AUTHORITIES_LENGTH)
      throw new UsageError(
        `cannot use more than ${MAX_AUTHORITIES_LENGTH} bytes of certificate authorities`,
        {
          hint: 'give only the authorities of this registry',
        },
      );
  }
  return {
    authorities: [...authorities, ...(await extraAuthorities(options))],
    clientCertificate: pair && {
      cert: await readPem(pair.cert, 'the client certificate', signal),
      key: await readPem(pair.key, 'the key of the client certificate', signal),
    },
    verify: options.tlsVerify !== false && !insecure,
    configured: own.length > 0 || pair !== undefined,
  };
}

/**
 * The context for connections with these settings. The system's store is slow to read, and what it adds to the bundled
 * authorities is seldom needed: so it comes in only with `system`.
 */
export async function secureContext(settings: TlsSettings, system: boolean): Promise<SecureContext> {
  const { createSecureContext, getCACertificates } = await import('node:tls');
  const { authorities, clientCertificate } = settings;
  const plain = authorities.length === 0 && !system;
  const all = [
    ...getCACertificates('bundled'),
    ...(system ? getCACertificates('system') : []),
    ...authorities,
  ];
  try {
    return createSecureContext({ ...clientCertificate, ...(!plain && { ca: [...new Set(all)] }) });
  } catch (error) {
    throw new UsageError(`a certificate or key that was given cannot be used: ${reasonOf(error)}`, {
      hint: 'they have to be PEM, and the key the one of the certificate, without a passphrase',
      cause: error,
    });
  }
}
