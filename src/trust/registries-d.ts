import { statSync } from 'node:fs';
import { join } from 'node:path';
import { isScalar, parseDocument, visit } from 'yaml';
import { printable, UntrustedError } from '../errors.ts';
import { isObject } from '../oci/json.ts';
import {
  type ConfigPlaces,
  homeDirectory,
  listConfigDirectory,
  readConfigFile,
} from '../sys/config-files.ts';
import { osErrorOf, reasonOf } from '../sys/os-error.ts';

/** The places of configuration files, and the user's id. */
export interface PolicyPlaces extends ConfigPlaces {
  readonly uid: number;
}

/** The places of a repository's signatures: containers-registries.d(5). */
export interface SignaturePlaces {
  /** `use-sigstore-attachments`: Sigstore signatures in the image's registry are used. */
  readonly attachments: boolean;
  /** The base of the addresses of GPG signatures. */
  readonly lookaside: string;
  /** The directory of the files, for messages. */
  readonly directory: string;
}

interface Section {
  readonly attachments: boolean | undefined;
  readonly lookaside: string | undefined;
}

/**
 * Reads the user's registries.d, else the system's.
 *
 * @param scopes of the image, the most specific first
 * @throws UntrustedError for a file that cannot be read or is malformed, and if two files have the same
 * section
 */
export async function readSignaturePlaces(
  scopes: readonly string[],
  places: PolicyPlaces,
  signal: AbortSignal | undefined,
): Promise<SignaturePlaces> {
  const directory = directoryOf(places);
  const sections = new Map<string, Section>();
  const names = (await listConfigDirectory(directory)) ?? [];
  for (const name of names.filter((each) => each.endsWith('.yaml'))) {
    const file = join(directory, name);
    try {
      for (const [scope, section] of await readSections(file, signal)) {
        if (sections.has(scope)) throw new Error(`another file has the section ${scope} too`);
        sections.set(scope, section);
      }
    } catch (error) {
      signal?.throwIfAborted();
      const reason = osErrorOf(error)?.text ?? printable(reasonOf(error), 300);
      throw new UntrustedError(`cannot use ${printable(file)}: ${reason}`, {
        code: 'BAD_POLICY',
        hint: 'correct the file (containers-registries.d(5))',
        cause: error,
      });
    }
  }
  const found = [...scopes.map((scope) => `docker: ${scope}`), 'default-docker'].flatMap(
    (scope) => sections.get(scope) ?? [],
  );
  return {
    attachments: found.find(({ attachments }) => attachments !== undefined)?.attachments ?? false,
    lookaside: found.find(({ lookaside }) => lookaside)?.lookaside ?? defaultLookaside(places),
    directory,
  };
}

function directoryOf(places: ConfigPlaces): string {
  const { environment, configDirs: [first = '/etc'] = [] } = places;
  const home = homeDirectory(environment);
  const own = home === undefined ? undefined : join(home, '.config/containers/registries.d');
  return own !== undefined && exists(own) ? own : join(first, 'containers/registries.d');
}

function exists(directory: string): boolean {
  try {
    statSync(directory);
    return true;
  } catch {
    return false;
  }
}

function defaultLookaside({ environment, uid }: PolicyPlaces): string {
  if (uid === 0) return 'file:///var/lib/containers/sigstore';
  return `file://${join(homeDirectory(environment) ?? '/', '.local/share/containers/sigstore')}`;
}

async function readSections(
  file: string,
  signal: AbortSignal | undefined,
): Promise<readonly (readonly [scope: string, Section])[]> {
  const text = await readConfigFile(file, { named: false, signal });
  const document = parseYaml(text) ?? {};
  if (!isObject(document)) throw new Error('it is no mapping');
  const { docker = {}, 'default-docker': fallback } = document;
  if (docker !== null && !isObject(docker)) throw new Error('"docker" is no mapping');
  return [
    ...Object.entries(docker ?? {}).map(
      ([scope, value]) => [`docker: ${scope}`, sectionOf(value, scope)] as const,
    ),
    ...(fallback === undefined || fallback === null
      ? []
      : [['default-docker', sectionOf(fallback, 'default-docker')] as const]),
  ];
}

/**
 * Parses a file by the rules of YAML 1.1, as containers/image does: `yes` is true.
 *
 * @throws Error that says what is wrong, in one line
 */
function parseYaml(text: string): unknown {
  // The library compares each key with all others.
  const document = parseDocument(text, { version: '1.1', uniqueKeys: false });
  const [error] = document.errors;
  if (error) throw new Error(error.message.split('\n', 1)[0]);
  visit(document, {
    Map: (_, { items }) => {
      const keys = new Set<unknown>();
      for (const { key } of items) {
        const name = isScalar(key) ? key.value : key;
        if (keys.has(name)) throw new Error(`${String(name)} is not unique in a mapping`);
        keys.add(name);
      }
    },
  });
  return document.toJS();
}

function sectionOf(value: unknown, scope: string): Section {
  if (value === null) return { attachments: undefined, lookaside: undefined };
  if (!isObject(value)) throw new Error(`${scope} is no mapping`);
  const { 'use-sigstore-attachments': attachments } = value;
  if (attachments !== undefined && attachments !== null && typeof attachments !== 'boolean')
    throw new Error(`"use-sigstore-attachments" of ${scope} is neither true nor false`);
  // `sigstore` is its older name.
  const [lookaside] = ['lookaside', 'sigstore'].flatMap((key) => {
    const address = value[key] ?? '';
    if (typeof address !== 'string') throw new Error(`"${key}" of ${scope} is no address`);
    return address === '' ? [] : [address];
  });
  return { attachments: attachments ?? undefined, lookaside };
}
