import { UsageError, printable } from '../errors.ts';
import type { Reference } from '../oci/reference.ts';
import { findTable, readRegistriesConf, relocate, type RegistryTable } from './config/registries-conf.ts';
import type { RegistryOptions } from './registry-options.ts';

/** One place where a repository may be read from. */
export interface Source {
  /** `host[:port]`, `docker.io` for Hub. */
  readonly registry: string;
  readonly repository: string;
  /** http, and certificates that are not checked, are allowed. */
  readonly insecure: boolean;
  /** http, without trying https. */
  readonly plainHttp: boolean;
  /** Undefined for the registry of the reference itself. */
  readonly mirrorOf: string | undefined;
}

/** Reads `[scheme://]host[:port][/path]` of `--mirror`; throws UsageError. */
function parseMirror(text: string, reference: Reference): Source {
  const address = URL.parse(text.includes('://') ? text : `https://${text}`);
  const sound =
    address && /^https?:$/.test(address.protocol) && address.hostname && !address.search && !address.hash;
  if (!sound || address.username || address.password) {
    throw new UsageError('a mirror is not host[:port][/path]', {
      hint: 'write it as mirror.example.com or http://localhost:5000; credentials belong into --authfile',
    });
  }
  const path = address.pathname.replace(/^\/(?:v2\/?)?|\/$/g, '');
  // The URL parser drops a port that is the scheme's own, which is right: it is not needed.
  return {
    registry: address.host,
    repository: path === '' ? reference.repository : `${path}/${reference.repository}`,
    insecure: false,
    plainHttp: address.protocol === 'http:',
    mirrorOf: reference.registry,
  };
}

/** Where to read a reference from, in order: what `--mirror` and registries.conf name, then the registry itself. */
export function sourcesOf(
  reference: Reference,
  mirrors: readonly string[],
  tables: readonly RegistryTable[],
): readonly Source[] {
  const named = mirrors.map((mirror) => parseMirror(mirror, reference));
  const table = findTable(tables, reference);
  if (!table) return [...named, { ...reference, insecure: false, plainHttp: false, mirrorOf: undefined }];
  if (table.blocked) {
    throw new UsageError(`${printable(table.prefix)} is blocked in registries.conf`, {
      code: 'BLOCKED',
      hint: 'who set up this machine does not want it pulled from there: see blocked = true in registries.conf',
    });
  }
  const excluded = reference.digest === undefined ? 'digest-only' : 'tag-only';
  const configured = table.mirrors
    .filter(({ use }) => use !== excluded)
    .map(({ location, insecure }) => ({
      ...relocate(reference, table.prefix, location),
      insecure,
      plainHttp: false,
      mirrorOf: reference.registry,
    }));
  const own = relocate(reference, table.prefix, table.location);
  return [
    ...named,
    ...configured,
    {
      registry: own.registry,
      repository: own.repository,
      insecure: table.insecure,
      plainHttp: false,
      mirrorOf: undefined,
    },
  ];
}

/** As `sourcesOf`, with registries.conf read. */
export async function findSources(
  reference: Reference,
  options: RegistryOptions,
): Promise<readonly Source[]> {
  return sourcesOf(reference, options.mirrors ?? [], await readRegistriesConf(options));
}
