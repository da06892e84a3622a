import { join } from 'node:path';
import type { SecureContext } from 'node:tls';
import { printable, UsageError } from '../../errors.ts';
import { reasonOf } from '../../sys/os-error.ts';
import type { RegistryOptions } from '../registry-options.ts';
import {
  configDirectories,
  listConfigDirectory,
  NoDataError,
  readConfigFile,
} from '../../sys/config-files.ts';

/** Settings of the TLS connections on behalf of one registry. */
export interface TlsSettings {
  /** PEM, in addition to the bundled and the system's authorities. */
  readonly authorities: readonly string[];
  /** PEM. */
  readonly clientCertificate?: { readonly cert: string; readonly key: string } | undefined;
  readonly verify: boolean;
  /** Certificates for this registry are configured: it speaks TLS. */
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

/** It is set for all programs on Node, and its path may be of another root directory: like Node, this continues without it. */
async function extraAuthorities({ environment, report, signal }: RegistryOptions): Promise<string[]> {
  const path = environment['NODE_EXTRA_CA_CERTS'];
  if (path === undefined || path === '') return [];
  try {
    return [await readPem(path, 'NODE_EXTRA_CA_CERTS', signal)];
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    // Node's TLS opens the file itself, and would never return.
    if (error.cause instanceof NoDataError) throw error;
    report({ type: 'notice', message: `${error.message}; going on without it` });
    return [];
  }
}

/** The TLS settings for `registry` (`host[:port]`), from options, environment and certs.d directories. */
export async function tlsSettings(
  registry: string,
  options: RegistryOptions,
  insecure: boolean,
): Promise<TlsSettings> {
  const found = await certificateDirectory(registry, options);
  const { caFile, certFile, keyFile, signal } = options;
  if ((certFile === undefined) !== (keyFile === undefined)) {
    throw new UsageError('a client certificate needs both --cert-file and --key-file', {
      hint: 'give both, or neither',
    });
  }
  const pair = certFile === undefined ? found.clientCertificate : { cert: certFile, key: keyFile! };
  const paths = [...(caFile === undefined ? [] : [caFile]), ...found.authorities];
  const authorities: string[] = [];
  let length = 0;
  for (const path of paths) {
    const text = await readPem(path, 'a certificate authority', signal);
    // Node would take it for a file without authorities, and the error would name the server.
    if (path === caFile && !/^-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----/m.test(text))
      throw new UsageError(`cannot use ${printable(path)} for --ca-file: it has no certificate`, {
        hint: 'name a PEM file, with the line -----BEGIN CERTIFICATE-----; a DER file is converted by openssl x509 -inform der -in FILE -out FILE.pem',
      });
    authorities.push(text);
    length += text.length;
    if (length > MAX_AUTHORITIES_LENGTH) {
      throw new UsageError(
        `cannot use more than ${MAX_AUTHORITIES_LENGTH} bytes of certificate authorities`,
        { hint: 'give only the authorities of this registry' },
      );
    }
  }
  return {
    authorities: [...authorities, ...(await extraAuthorities(options))],
    clientCertificate: pair && {
      cert: await readPem(pair.cert, 'the client certificate', signal),
      key: await readPem(pair.key, 'the key of the client certificate', signal),
    },
    verify: !insecure,
    configured: paths.length > 0 || pair !== undefined,
  };
}

/**
 * The context for connections with these settings.
 *
 * @param system use the system's authorities too: they are slow to read, and the bundled ones are nearly always enough
 */
export async function secureContext(settings: TlsSettings, system: boolean): Promise<SecureContext> {
  const { createSecureContext, getCACertificates } = await import('node:tls');
  const { authorities, clientCertificate } = settings;
  const plain = authorities.length === 0 && !system;
  const all = () => [
    ...getCACertificates('bundled'),
    ...(system ? getCACertificates('system') : []),
    ...authorities,
  ];
  try {
    return createSecureContext({ ...clientCertificate, ...(!plain && { ca: [...new Set(all())] }) });
  } catch (error) {
    throw new UsageError(`cannot use the certificate or key: ${reasonOf(error)}`, {
      hint: 'give PEM files, and the key of the certificate, without a passphrase',
      cause: error,
    });
  }
}

/** The paths in a certs.d directory for one registry. */
type CertificateFiles = Pick<TlsSettings, 'authorities' | 'clientCertificate'>;

/**
 * Sorts the files of a certs.d directory: every `*.crt` is an authority, `X.cert` and `X.key` are a client certificate.
 *
 * @throws UsageError when one of a pair is missing
 */
export function sortCertificates(directory: string, names: readonly string[]): CertificateFiles {
  const all = new Set(names);
  const authorities = names.filter((name) => name.endsWith('.crt')).map((name) => join(directory, name));
  let clientCertificate: CertificateFiles['clientCertificate'];
  for (const name of names) {
    const [, stem, kind] = /^(.+)\.(cert|key)$/.exec(name) ?? [];
    if (stem === undefined) continue;
    const other = `${stem}.${kind === 'cert' ? 'key' : 'cert'}`;
    if (!all.has(other))
      throw new UsageError(`${directory} has ${name} but no ${other}`, {
        hint: `add ${other}, or remove ${name}`,
      });
    clientCertificate ??= { cert: join(directory, `${stem}.cert`), key: join(directory, `${stem}.key`) };
  }
  return { authorities, clientCertificate };
}

/**
 * The certificates for `registry` (`host[:port]` as in the reference) from `certDir`, else from the first certs.d that has it:
 * containers-certs.d(5), then docker's.
 */
async function certificateDirectory(registry: string, options: RegistryOptions): Promise<CertificateFiles> {
  const { certDir } = options;
  const places = [...configDirectories(options, 'containers'), ...configDirectories(options, 'docker')];
  for (const directory of certDir === undefined
    ? places.map((place) => join(place, 'certs.d', registry))
    : [certDir]) {
    const names = await listConfigDirectory(directory);
    if (names) return sortCertificates(directory, names);
  }
  if (certDir === undefined) return { authorities: [] };
  throw new UsageError(`cannot read the certificate directory ${certDir}`, {
    hint: 'name a directory with *.crt, or *.cert and *.key, that you may read',
  });
}
