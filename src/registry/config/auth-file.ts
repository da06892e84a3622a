import { HUB_ALIASES } from '../../oci/reference.ts';
import { isObject, type JsonObject, textOf } from '../../oci/json.ts';

/** A credential for a registry; `source`: where it was found, for messages. */
export type Credential =
  | {
      readonly kind: 'password';
      readonly username: string;
      readonly password: string;
      readonly source: string;
    }
  /** An OAuth2 refresh token, exchanged at the token server by POST. */
  | { readonly kind: 'identity-token'; readonly token: string; readonly source: string }
  /** A Bearer token, sent as it is. */
  | { readonly kind: 'registry-token'; readonly token: string; readonly source: string };

/** The key of Docker Hub in docker's files, and the key for its helpers. */
const HUB_KEY = 'https://index.docker.io/v1/';

/** The members of a file with logins (`config.json`, `auth.json`); malformed ones are left out. */
function membersOf(file: unknown, key: 'auths' | 'credHelpers'): readonly [string, unknown][] {
  const value = isObject(file) ? file[key] : undefined;
  return isObject(value) ? Object.entries(value) : [];
}

/** `https://HOST/v1/` and the like reduced to the host; Hub's hosts have one name. */
function hostOfKey(key: string): string {
  const host = key
    .replace(/^https?:\/\//i, '')
    .split('/', 1)[0]!
    .toLowerCase();
  return HUB_ALIASES.has(host) ? 'docker.io' : host;
}

function namespacedKey(key: string): string {
  const slash = key.indexOf('/');
  if (slash === -1 || /^https?:/i.test(key)) return key;
  const host = hostOfKey(key);
  return host + key.slice(slash);
}

/**
 * The helper programs that may keep the credentials of `registry`, each with the key for it: its own, then the store for all registries.
 *
 * @param file the document in a file of docker or podman with logins
 */
export function findHelpers(
  file: unknown,
  registry: string,
): readonly { readonly name: string; readonly key: string }[] {
  const host = hostOfKey(registry);
  const own = membersOf(file, 'credHelpers')
    .map(([key, name]) => ({ key, name: textOf(name) ?? '' }))
    .find(({ key, name }) => hostOfKey(key) === host && name !== '');
  const store = isObject(file) ? textOf(file['credsStore']) : undefined;
  return [
    ...(own ? [own] : []),
    ...(store === undefined ? [] : [{ name: store, key: host === 'docker.io' ? HUB_KEY : registry }]),
  ];
}

/**
 * The entry for a repository: the most specific key wins, then keys that are addresses of the host. An entry without content only
 * marks that a store has the credentials.
 */
export function findEntry(
  file: unknown,
  registry: string,
  repository: string,
): { readonly key: string; readonly entry: JsonObject } | undefined {
  const host = hostOfKey(registry);
  const entries = membersOf(file, 'auths').flatMap(([key, entry]) =>
    isObject(entry) && Object.keys(entry).length > 0 ? [{ key, entry }] : [],
  );
  const parts = repository.split('/');
  // `docker.io/library/alpine`, `docker.io/library`: containers-auth.json(5).
  const paths = parts.map((_, n) => `${host}/${parts.slice(0, parts.length - n).join('/')}`);
  const ofHost = entries.filter(({ key }) => hostOfKey(key) === host);
  return (
    paths.map((path) => entries.find(({ key }) => namespacedKey(key) === path)).find(Boolean) ??
    ofHost.find(({ key }) => key === registry) ??
    ofHost.find(({ key }) => key === HUB_KEY) ??
    ofHost.find(({ key }) => /^(?:https?:\/\/)?[^/]*(?:\/(?:v[12]\/?)?)?$/i.test(key))
  );
}

/**
 * Reads an entry's credential; undefined for one that only marks a login.
 *
 * @throws Error with the reason, without secrets
 */
export function entryCredential(entry: JsonObject, source: string): Credential | undefined {
  const [registryToken, identityToken, auth, username, password] = [
    'registrytoken',
    'identitytoken',
    'auth',
    'username',
    'password',
  ].map((name) => textOf(entry[name]));
  if (registryToken) return { kind: 'registry-token', token: registryToken, source };
  if (identityToken) return { kind: 'identity-token', token: identityToken, source };
  if (auth) return decodeAuth(auth, source);
  return username && password ? { kind: 'password', username, password, source } : undefined;
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
