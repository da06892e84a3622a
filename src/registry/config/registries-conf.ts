import { join } from 'node:path';
import { UsageError, printable } from '../../errors.ts';
import { isObject, type JsonObject, textOf } from '../../oci/json.ts';
import { isRegistry, type Reference } from '../../oci/reference.ts';
import { configDirectories, listConfigDirectory, readConfigFile } from '../../sys/config-files.ts';
import type { RegistryOptions } from '../registry-options.ts';

/** A `[[registry]]` table of containers-registries.conf(5), as in its file; `prefix` is `host[:port][/path]` or `*.domain`. */
export type RegistryTable = JsonObject & { readonly prefix: string };

/** The `[[registry]]` tables of one parsed file; tables that name neither prefix nor location are left out. */
export function registryTables(document: unknown): readonly RegistryTable[] {
  return tablesOf(document, 'registry').flatMap((table) => {
    const prefix = textOf(table['prefix']) ?? textOf(table['location']);
    return prefix === undefined ? [] : [{ ...table, prefix }];
  });
}

function tablesOf(value: unknown, key: string): readonly JsonObject[] {
  const tables: unknown = isObject(value) ? value[key] : undefined;
  return Array.isArray(tables) ? tables.filter(isObject) : [];
}

/** The number of characters of `name` that the prefix matches; undefined without a match. */
function matchLength(prefix: string, name: string): number | undefined {
  if (prefix.startsWith('*.')) {
    const host = name.split('/', 1)[0]!;
    return host.replace(/:\d+$/, '').endsWith(prefix.slice(1)) ? host.length : undefined;
  }
  const exact = name === prefix || (name.startsWith(prefix) && /[/:@]/.test(name.charAt(prefix.length)));
  return exact ? prefix.length : undefined;
}

/** The table that applies to a reference: the longest prefix wins, of equal ones the last that was read. */
export function findTable(tables: readonly RegistryTable[], reference: Reference): RegistryTable | undefined {
  const { registry, repository, tag, digest } = reference;
  const name = `${registry}/${repository}${tag === undefined ? '' : `:${tag}`}${digest === undefined ? '' : `@${digest}`}`;
  return tables
    .filter(({ prefix }) => matchLength(prefix, name) !== undefined)
    .toSorted((one, other) => one.prefix.length - other.prefix.length)
    .at(-1);
}

/** Registry and repository with `location` in place of `prefix`. */
function relocate(
  reference: Reference,
  prefix: string,
  location: string | undefined,
): Pick<Reference, 'registry' | 'repository'> {
  const { registry, repository } = reference;
  if (location === undefined) return { registry, repository };
  const name = `${registry}/${repository}`;
  const moved = location.replace(/\/+$/, '') + name.slice(matchLength(prefix, name) ?? name.length);
  const slash = moved.indexOf('/');
  if (slash <= 0 || slash === moved.length - 1 || !isRegistry(moved.slice(0, slash))) {
    throw new UsageError(
      `cannot use registries.conf: the location for ${printable(prefix)} does not lead from ${printable(name)} to HOST[:PORT]/REPOSITORY`,
      { hint: 'correct location and prefix in registries.conf' },
    );
  }
  return { registry: moved.slice(0, slash), repository: moved.slice(slash + 1) };
}

/**
 * The tables of `registries.conf` (the user's instead of the system's) and of the drop-ins, in the order in which later ones win.
 *
 * @throws UsageError for a file that is not TOML
 */
export async function readRegistriesConf(
  options: Pick<RegistryOptions, 'environment' | 'configDirs' | 'signal'>,
): Promise<readonly RegistryTable[]> {
  const { environment, signal } = options;
  const read = async (path: string, named: boolean) =>
    readConfigFile(path, { named, signal }).catch(() => {
      signal?.throwIfAborted();
      return undefined;
    });
  const directories = configDirectories(options, 'containers');
  const named = environment['CONTAINERS_REGISTRIES_CONF'];
  const tables: RegistryTable[] = [];
  for (const path of named ? [named] : directories.map((directory) => join(directory, 'registries.conf'))) {
    const text = await read(path, Boolean(named));
    if (text === undefined) continue;
    tables.push(...(await parse(text, path)));
    break;
  }
  for (const directory of directories.toReversed()) {
    const dropIns = join(directory, 'registries.conf.d');
    const names = (await listConfigDirectory(dropIns)) ?? [];
    for (const name of names.filter((each) => each.endsWith('.conf'))) {
      const path = join(dropIns, name);
      tables.push(...(await parse((await read(path, false)) ?? '', path)));
    }
  }
  return tables;
}

async function parse(text: string, path: string): Promise<readonly RegistryTable[]> {
  // Most files only name short-name aliases; the parser is not loaded for those.
  if (!/\[\[\s*registry/.test(text)) return [];
  const { parse: parseToml } = await import('smol-toml');
  try {
    return registryTables(parseToml(text));
  } catch (error) {
    const reason = error instanceof Error ? error.message.split('\n', 1)[0]! : '';
    throw new UsageError(`cannot read ${printable(path)}: ${printable(reason)}`, {
      hint: 'correct the file, or name another by CONTAINERS_REGISTRIES_CONF',
      cause: error,
    });
  }
}

/** A place of a repository: its own registry or a mirror. */
export interface Location {
  /** `host[:port]`, `docker.io` for Hub. */
  readonly registry: string;
  readonly repository: string;
  /** http and unchecked certificates are allowed. */
  readonly insecure: boolean;
  /** http, without trying https. */
  readonly plainHttp: boolean;
  /** Undefined for the registry of the reference itself. */
  readonly mirrorOf: string | undefined;
}

/**
 * Reads `[scheme://]host[:port][/path]` of `--mirror`.
 *
 * @throws UsageError
 */
function parseMirror(text: string, reference: Reference): Location {
  const address = URL.parse(text.includes('://') ? text : `https://${text}`);
  const valid =
    address && /^https?:$/.test(address.protocol) && address.hostname && !address.search && !address.hash;
  if (!valid || address.username || address.password) {
    throw new UsageError('cannot use a mirror that is not [scheme://]host[:port][/path]', {
      hint: 'write it as mirror.example.com or http://localhost:5000; put credentials into --authfile',
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

/** The places of a reference, in order: the mirrors of `--mirror` and of registries.conf, then the registry itself. */
export function locationsOf(
  reference: Reference,
  mirrors: readonly string[],
  tables: readonly RegistryTable[],
): readonly Location[] {
  const table = findTable(tables, reference) ?? { prefix: '' };
  if (table['blocked'] === true) {
    throw new UsageError(`${printable(table.prefix)} is blocked in registries.conf`, {
      code: 'BLOCKED',
      hint: 'remove blocked = true there, or ask the administrator of this machine',
    });
  }
  const place = (entry: JsonObject, mirrorOf?: string): Location => ({
    ...relocate(reference, table.prefix, textOf(entry['location'])),
    insecure: entry['insecure'] === true,
    plainHttp: false,
    mirrorOf,
  });
  const everyUse = table['mirror-by-digest-only'] === true ? 'digest-only' : undefined;
  const excluded = reference.digest === undefined ? 'digest-only' : 'tag-only';
  const configured = tablesOf(table, 'mirror')
    .filter((mirror) => textOf(mirror['location']) !== undefined)
    .filter((mirror) => (everyUse ?? mirror['pull-from-mirror']) !== excluded);
  return [
    ...mirrors.map((mirror) => parseMirror(mirror, reference)),
    ...configured.map((mirror) => place(mirror, reference.registry)),
    place(table),
  ];
}
