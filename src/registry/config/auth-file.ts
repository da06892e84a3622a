import { HUB_ALIASES } from '../../oci/reference.ts';
import { isObject, type JsonObject } from '../../oci/json.ts';

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

/** The helper programs that may keep the credentials of `registry`, each with the key for it: its own, then the store for all registries. */
export function findHelpers(
  { credHelpers, credsStore }: AuthFile,
  registry: string,
): readonly { readonly name: string; readonly key: string }[] {
  const host = hostOfKey(registry);
  const own = [...credHelpers].find(([key, name]) => hostOfKey(key) === host && name !== '');
  return [
    ...(own ? [{ name: own[1], key: own[0] }] : []),
    ...(credsStore === undefined
      ? []
      : [{ name: credsStore, key: host === 'docker.io' ? HUB_KEY : registry }]),
  ];
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
  const host = hostOfKey(registry);
  const entries = [...file.auths]
    .map(([key, entry]) => ({ key, entry }))
    .filter(({ entry }) => Object.keys(entry).length > 0);
  const parts = repository.split('/');
  // `docker.io/library/alpine`, `docker.io/library`: containers-auth.json(5).
  const paths = parts.map((_, n) => `${host}/${parts.slice(0, parts.length - n).join('/')}`);
  const ofHost = entries.filter(({ key }) => hostOfKey(key) === host);
  return (
    paths.map((path) => entries.find(({ key }) => namespacedKey(key) === path)).find(Boolean) ??
    ofHost.find(({ key }) => key === registry) ??
    ofHost.find(({ key }) => key === HUB_KEY) ??
    ofHost.find(
      ({ key }) =>
        !key
          .replace(/^https?:\/\//i, '')
          .replace(/\/(?:v[12]\/?)?$/, '')
          .includes('/'),
    )
  );
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
