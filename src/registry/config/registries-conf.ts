import { join } from 'node:path';
import { UsageError, printable } from '../../errors.ts';
import { isObject, type JsonObject, textOf } from '../../oci/json.ts';
import { isRegistry, isRepository, type Reference } from '../../oci/reference.ts';
import { configDirectories, listConfigDirectory, readConfigFile } from '../../sys/config-files.ts';
import type { RegistryOptions } from '../registry-options.ts';

/**
 * A `[[registry]]` table of containers-registries.conf(5), unchanged; `prefix` is `host[:port][/path]` or
 * `*.domain`, by default `location`.
 */
export type RegistryTable = JsonObject & { readonly prefix: string };

/**
 * Returns the `[[registry]]` tables of a parsed file, without those that have neither prefix nor location.
 */
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

/** Returns how many characters of `name` the prefix matches; undefined without a match. */
function matchLength(prefix: string, name: string): number | undefined {
  if (prefix.startsWith('*.')) {
    const host = name.split('/', 1)[0]!;
    return host.replace(/:\d+$/, '').endsWith(prefix.slice(1)) ? host.length : undefined;
  }
  const exact = name === prefix || (name.startsWith(prefix) && /[/:@]/.test(name.charAt(prefix.length)));
  return exact ? prefix.length : undefined;
}

/** Returns the table for a reference: the longest prefix wins, of equal ones the last that was read. */
export function findTable(tables: readonly RegistryTable[], reference: Reference): RegistryTable | undefined {
  const { registry, repository, tag, digest } = reference;
  const suffix = (tag === undefined ? '' : `:${tag}`) + (digest === undefined ? '' : `@${digest}`);
  const name = `${registry}/${repository}${suffix}`;
  return tables
    .filter(({ prefix }) => matchLength(prefix, name) !== undefined)
    .toSorted((one, other) => one.prefix.length - other.prefix.length)
    .at(-1);
}

/**
 * Returns registry and repository with `location` in place of `prefix`.
 *
 * @throws UsageError if the result is not a registry and a repository
 */
function relocate(
  reference: Reference,
  prefix: string,
  location: string | undefined,
): Pick<Reference, 'registry' | 'repository'> {
  const { registry, repository } = reference;
  if (location === undefined) return { registry, repository };
  const name = `${registry}/${repository}`;
  const moved = location.replace(/\/+$/, '') + name.slice(matchLength(prefix, name) ?? name.length);
  const [host = ''] = moved.split('/', 1);
  const path = moved.slice(host.length + 1);
  if (!isRegistry(host) || !isRepository(path)) {
    const reason = `does not lead from ${printable(name)} to HOST[:PORT]/REPOSITORY`;
    throw new UsageError(`cannot use registries.conf: the location for ${printable(prefix)} ${reason}`, {
      hint: 'correct location and prefix in registries.conf',
    });
  }
  return { registry: host, repository: path };
}

/**
 * Reads the tables of `registries.conf` (the user's file replaces the system's) and of the drop-ins, in the
 * order in which later ones win. Unreadable files are skipped.
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
  // Most files have only short-name aliases: do not load the parser for them.
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

/** The location of a repository: its own registry or a mirror. */
export interface RegistryLocation {
  /** `host[:port]`, `docker.io` for Hub. */
  readonly registry: string;
  readonly repository: string;
  /** True if http and unchecked certificates are allowed. */
  readonly insecure: boolean;
  /** True: http, without trying https. */
  readonly plainHttp: boolean;
  /** The registry of the reference; undefined at that registry itself. */
  readonly mirrorOf: string | undefined;
}

/**
 * Parses a value of `--mirror`: `[scheme://]host[:port][/path]`.
 *
 * @throws UsageError
 */
function parseMirror(text: string, reference: Reference): RegistryLocation {
  const address = URL.parse(text.includes('://') ? text : `https://${text}`);
  const valid =
    address && /^https?:$/.test(address.protocol) && address.hostname && !address.search && !address.hash;
  if (!valid || address.username || address.password) {
    throw new UsageError('cannot use a mirror that is not [scheme://]host[:port][/path]', {
      hint: 'write it as mirror.example.com or http://localhost:5000; put credentials into --authfile',
    });
  }
  const path = address.pathname.replace(/^\/(?:v2\/?)?|\/$/g, '');
  // The URL parser drops the default port of the scheme, which is not needed.
  return {
    registry: address.host,
    repository: path === '' ? reference.repository : `${path}/${reference.repository}`,
    insecure: false,
    plainHttp: address.protocol === 'http:',
    mirrorOf: reference.registry,
  };
}

/**
 * Returns the locations of a reference, in order: the mirrors of `--mirror`, those of registries.conf, the
 * registry itself.
 *
 * @throws UsageError for an invalid mirror or location, and for a registry that registries.conf blocks
 */
export function locationsOf(
  reference: Reference,
  mirrors: readonly string[],
  tables: readonly RegistryTable[],
): readonly RegistryLocation[] {
  const table = findTable(tables, reference) ?? { prefix: '' };
  if (table['blocked'] === true) {
    throw new UsageError(`${printable(table.prefix)} is blocked in registries.conf`, {
      code: 'BLOCKED',
      hint: 'remove blocked = true there, or ask the administrator of this machine',
    });
  }
  const place = (entry: JsonObject, mirrorOf?: string): RegistryLocation => ({
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
