import { join } from 'node:path';
import { UsageError } from '../../errors.ts';
import { configHome, listConfigDirectory, systemConfigs } from './files.ts';
import type { RegistryOptions } from '../registry-options.ts';

/** Paths of what a certs.d directory holds for one registry. */
export interface CertificateFiles {
  readonly authorities: readonly string[];
  readonly clientCertificate?: { readonly cert: string; readonly key: string } | undefined;
}

const nothing: CertificateFiles = { authorities: [] };

/** The directories to look in, best first: containers-certs.d(5), then docker's. Only the first that exists counts. */
function candidates(registry: string, options: RegistryOptions): string[] {
  const home = configHome(options.environment);
  const places = [
    ...(home === undefined ? [] : [join(home, 'containers')]),
    ...systemConfigs(options, 'containers'),
    ...(home === undefined ? [] : [join(home, 'docker')]),
    ...systemConfigs(options, 'docker'),
  ];
  return places.map((place) => join(place, 'certs.d', registry));
}

/**
 * Sorts the files of a certs.d directory: every `*.crt` is an authority, `X.cert` and `X.key` are a client certificate. Throws
 * UsageError when one of a pair is missing.
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
        hint: 'put the other file beside it, or take this one away',
      });
    clientCertificate ??= { cert: join(directory, `${stem}.cert`), key: join(directory, `${stem}.key`) };
  }
  return { authorities, clientCertificate };
}

/** The certificates for `registry` (`host[:port]` as in the reference) from `certDir` or the first certs.d that has it. */
export async function certificateDirectory(
  registry: string,
  options: RegistryOptions,
): Promise<CertificateFiles> {
  if (options.certDir !== undefined) {
    const names = await listConfigDirectory(options.certDir);
    if (!names)
      throw new UsageError(`cannot read the certificate directory ${options.certDir}`, {
        hint: 'name a directory with *.crt, or *.cert and *.key, that you may read',
      });
    return sortCertificates(options.certDir, names);
  }
  for (const directory of candidates(registry, options)) {
    const names = await listConfigDirectory(directory);
    if (names) return sortCertificates(directory, names);
  }
  return nothing;
}
