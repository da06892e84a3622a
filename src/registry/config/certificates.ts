import { join } from 'node:path';
import type { SecureContext } from 'node:tls';
import { printable, UsageError } from '../../errors.ts';
import { reasonOf } from '../../sys/os-error.ts';
import type { RegistryOptions } from '../registry-options.ts';
import {
  configDirectories,
  listConfigDirectory,
  NoDataError,
  readNamedFile,
} from '../../sys/config-files.ts';

/** Settings of the TLS connections on behalf of one registry. */
export interface TlsSettings {
  /** PEM texts, in addition to the bundled authorities and those of the system. */
  readonly authorities: readonly string[];
  /** PEM texts. */
  readonly clientCertificate?: { readonly cert: string; readonly key: string } | undefined;
  readonly verify: boolean;
  /** True if certificates are configured for this registry: it speaks TLS. */
  readonly configured: boolean;
}

/** Limit on all authorities for one registry together, in characters. */
const MAX_AUTHORITIES_LENGTH = 16 * 1024 * 1024;

const HINT = 'check the path, and whether you may read it';

/**
 * Reads NODE_EXTRA_CA_CERTS. It is set for all programs on Node, perhaps in another root directory: like
 * Node, this continues without an unreadable file.
 */
async function extraAuthorities({ environment, report, signal }: RegistryOptions): Promise<string[]> {
  const path = environment['NODE_EXTRA_CA_CERTS'];
  if (path === undefined || path === '') return [];
  try {
    return [await readNamedFile(path, 'NODE_EXTRA_CA_CERTS', HINT, signal)];
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    // Such as a FIFO: Node's TLS opens the file itself, and would never return.
    if (error.cause instanceof NoDataError) throw error;
    report({ type: 'notice', message: `${error.message}; going on without it` });
    return [];
  }
}

/**
 * Returns the TLS settings for `registry` (`host[:port]`), from options, environment and certs.d directories.
 *
 * @throws UsageError for unusable certificate files
 */
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
    const text = await readNamedFile(path, 'the certificate authority', HINT, signal);
    // Node would find no authority in it, and the error would name the server.
    if (path === caFile && !/^-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----/m.test(text))
      throw new UsageError(`cannot use ${printable(path)} for --ca-file: it has no certificate`, {
        hint:
          'name a PEM file, with the line -----BEGIN CERTIFICATE-----; ' +
          'a DER file is converted by openssl x509 -inform der -in FILE -out FILE.pem',
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
      cert: await readNamedFile(pair.cert, 'the client certificate', HINT, signal),
      key: await readNamedFile(pair.key, 'the key of the client certificate', HINT, signal),
    },
    verify: !insecure,
    configured: paths.length > 0 || pair !== undefined,
  };
}

/**
 * Returns the context for connections with these settings.
 *
 * @param system use the system's authorities too: slow to read, and the bundled ones nearly always suffice
 * @throws UsageError for an invalid certificate or key
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

/** Paths of certificates for one registry. */
type CertificateFiles = Pick<TlsSettings, 'authorities' | 'clientCertificate'>;

/**
 * Sorts the files of a certs.d directory: each `*.crt` is an authority; `X.cert` and `X.key` are a client
 * certificate.
 *
 * @throws UsageError if one of a pair is missing
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
 * Returns the certificate files for `registry` (`host[:port]`, as in the reference) in `certDir`, else in the
 * first certs.d that has a directory for it: containers-certs.d(5), then docker's.
 *
 * @throws UsageError as `sortCertificates`, and if `certDir` cannot be read
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
