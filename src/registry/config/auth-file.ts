import { HUB_ALIASES } from '../../oci/reference.ts';
import { isObject, type JsonObject } from '../../oci/json.ts';
import type { Credential } from '../auth/credentials.ts';

/** A file of docker or podman with logins: `config.json`, `auth.json`. */
export interface AuthFile {
  /** Key (`host`, `host/namespace/repository`, or an address) to entry. */
  readonly auths: ReadonlyMap<string, JsonObject>;
  /** Key to the name of a helper program. */
  readonly credHelpers: ReadonlyMap<string, string>;
  readonly credsStore: string | undefined;
}

/** The key of Docker Hub in docker's files, and the key for its helpers. */
const HUB_KEY = 'https://index.docker.io/v1/';

/** Reads the members for logins; malformed ones are left out, since these files have many others. */
export function parseAuthFile(document: unknown): AuthFile {
  const root = isObject(document) ? document : {};
  const auths = isObject(root['auths']) ? Object.entries(root['auths']) : [];
  const helpers = isObject(root['credHelpers']) ? Object.entries(root['credHelpers']) : [];
  const store = root['credsStore'];
  return {
    auths: new Map(auths.filter((entry): entry is [string, JsonObject] => isObject(entry[1]))),
    credHelpers: new Map(helpers.filter((entry): entry is [string, string] => typeof entry[1] === 'string')),
    credsStore: typeof store === 'string' && store !== '' ? store : undefined,
  };
}

/** `~/.dockercfg` of docker before 1.7: the map of `auths` alone. */
export function parseLegacyAuthFile(document: unknown): AuthFile {
  return parseAuthFile({ auths: document });
}

/** `https://HOST/v1/` and the like reduced to the host; Hub's hosts have one name. */
function hostOfKey(key: string): string {
  const host = key
    .replace(/^https?:\/\//i, '')
    .split('/', 1)[0]!
    .toLowerCase();
  return HUB_ALIASES.has(host) ? 'docker.io' : host;
}

/** `docker.io/library/alpine`, `docker.io/library`, `docker.io`: containers-auth.json(5). */
function specificKeys(registry: string, repository: string): string[] {
  const parts = repository.split('/');
  const paths = parts.map((_, n) => parts.slice(0, parts.length - n).join('/'));
  return [...paths.map((path) => `${registry}/${path}`), registry];
}

function namespacedKey(key: string): string {
  const slash = key.indexOf('/');
  if (slash === -1 || /^https?:/i.test(key)) return key;
  const host = hostOfKey(key);
  return host + key.slice(slash);
}

/** The helper program that keeps the credentials of `registry`, and the key for it. */
export function findHelper(
  file: AuthFile,
  registry: string,
): { readonly name: string; readonly key: string } | undefined {
  for (const [key, name] of file.credHelpers) {
    if (hostOfKey(key) === hostOfKey(registry) && name !== '') return { name, key };
  }
  return undefined;
}

/** The key of `registry` for a credential store. */
export function storeKey(registry: string): string {
  return hostOfKey(registry) === 'docker.io' ? HUB_KEY : registry;
}

/**
 * The entry for a repository: the most specific key wins, then keys that are addresses of the host. An entry without content only
 * marks that a store has the credentials.
 */
export function findEntry(
  file: AuthFile,
  registry: string,
  repository: string,
): { readonly key: string; readonly entry: JsonObject } | undefined {
  const wanted = specificKeys(hostOfKey(registry), repository);
  const byKey = new Map(
    [...file.auths].toReversed().map(([key, entry]) => [namespacedKey(key), { key, entry }] as const),
  );
  for (const key of wanted.slice(0, -1)) {
    const found = byKey.get(key);
    if (found && Object.keys(found.entry).length > 0) return found;
  }
  const host = wanted.at(-1)!;
  const exact = byKey.get(registry) ?? byKey.get(HUB_KEY);
  if (exact && hostOfKey(exact.key) === host && Object.keys(exact.entry).length > 0) return exact;
  for (const [key, entry] of file.auths) {
    const plain = !key
      .replace(/^https?:\/\//i, '')
      .replace(/\/(?:v[12]\/?)?$/, '')
      .includes('/');
    if (plain && hostOfKey(key) === host && Object.keys(entry).length > 0) return { key, entry };
  }
  return undefined;
}

/**
 * Reads an entry's credential; undefined for one that only marks a login.
 *
 * @throws Error with the reason, without secrets
 */
export function entryCredential(entry: JsonObject, source: string): Credential | undefined {
  const text = (name: string) => (typeof entry[name] === 'string' ? entry[name] : '');
  if (text('registrytoken')) return { kind: 'registry-token', token: text('registrytoken'), source };
  if (text('identitytoken')) return { kind: 'identity-token', token: text('identitytoken'), source };
  if (text('auth')) return decodeAuth(text('auth'), source);
  if (text('username') && text('password')) {
    return { kind: 'password', username: text('username'), password: text('password'), source };
  }
  return undefined;
}

function decodeAuth(auth: string, source: string): Credential {
  const text = Buffer.from(auth, 'base64')
    .toString('utf8')
    .replaceAll(/^\0+|\0+$/g, '');
  const colon = text.indexOf(':');
  if (colon <= 0) throw new Error('"auth" is not base64 of user:password');
  return {
    kind: 'password',
    username: text.slice(0, colon),
    password: text.slice(colon + 1).replaceAll(/\0+$/g, ''),
    source,
  };
}
