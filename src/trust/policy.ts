import path from 'node:path';
import { printable } from '../errors.ts';
import { isObject, type JsonObject } from '../oci/json.ts';
import { DEFAULT_IDENTITY, parseSignedIdentity, type SignedIdentity } from './signed-identity.ts';
import { parseStrictJson, requireMembers } from './strict-json.ts';

/** Keys or certificates of a policy: a file that it names, or bytes in it. */
export type Material = { readonly file: string } | { readonly bytes: Uint8Array };

/** `fulcio` of containers-policy.json(5). */
export interface FulcioRule {
  readonly authorities: Material;
  readonly issuer: string;
  readonly email: string;
}

/** A requirement on an image: containers-policy.json(5). */
export type Requirement =
  | { readonly type: 'insecureAcceptAnything' | 'reject' | 'signedBaseLayer' }
  | {
      readonly type: 'signedBy';
      readonly keyType: string;
      readonly keys: readonly Material[];
      readonly identity: SignedIdentity;
    }
  | {
      readonly type: 'sigstoreSigned';
      /** Any of these keys, or a certificate. `pki` (certificates of other authorities) is not supported. */
      readonly by: { readonly keys: readonly Material[] } | { readonly fulcio: FulcioRule } | 'pki';
      /** Keys of transparency logs: one of these logs must have an entry for the signature. */
      readonly logKeys: readonly Material[];
      readonly identity: SignedIdentity;
    };

/** A parsed policy.json. */
export interface Policy {
  readonly default: readonly Requirement[];
  /** Requirements by transport and scope. */
  readonly transports: ReadonlyMap<string, ReadonlyMap<string, readonly Requirement[]>>;
}

/** The requirements for an image, and the scope in the policy that has them. */
export interface ChosenRequirements {
  readonly requirements: readonly Requirement[];
  /** For messages. */
  readonly scope: string;
}

/**
 * Parses policy.json by the rules of containers/image: a member that is unknown, missing or repeated is an
 * error, at every level.
 *
 * @throws Error that says what is wrong
 */
export function parsePolicy(bytes: Uint8Array): Policy {
  const document = requireMembers(parseStrictJson(bytes, 'it'), 'it', {
    required: ['default'],
    optional: ['transports'],
  });
  const transports = new Map<string, ReadonlyMap<string, readonly Requirement[]>>();
  for (const [transport, value] of Object.entries(objectOf(document, 'transports', 'it'))) {
    const what = `transport ${printable(JSON.stringify(transport), 100)}`;
    if (!isObject(value)) throw new Error(`${what} is no object`);
    const scopes = new Map<string, readonly Requirement[]>();
    for (const [scope, list] of Object.entries(value)) {
      const where = `${what}, scope ${printable(JSON.stringify(scope), 200)}`;
      requireScope(transport, scope, where);
      scopes.set(scope, requirementsOf(list, where));
    }
    transports.set(transport, scopes);
  }
  return { default: requirementsOf(document['default'], '"default"'), transports };
}

/**
 * Returns the requirements of the first scope that the policy has, else of the transport's scope "", else the
 * default ones.
 *
 * @param scopes of the image, the most specific first
 */
export function requirementsFor(
  policy: Policy,
  transport: string,
  scopes: readonly string[],
): ChosenRequirements {
  const known = policy.transports.get(transport);
  for (const scope of [...scopes, '']) {
    const requirements = known?.get(scope);
    if (requirements) return { requirements, scope: `${transport} ${printable(JSON.stringify(scope), 200)}` };
  }
  return { requirements: policy.default, scope: 'default' };
}

/** Transports whose scopes are absolute paths. */
const BY_PATH: ReadonlySet<string> = new Set(['oci', 'oci-archive', 'dir']);

function requireScope(transport: string, scope: string, where: string): void {
  if (scope === '') return;
  if (transport === 'docker-archive') throw new Error(`${where}: this transport has no scope but ""`);
  if (!BY_PATH.has(transport)) return;
  if (scope === '/') throw new Error(`${where}: write "" for all paths`);
  if (!scope.startsWith('/') || path.normalize(scope) !== scope || scope.endsWith('/'))
    throw new Error(`${where} is no absolute path without ".", ".." and double slashes`);
}

function requirementsOf(value: unknown, where: string): readonly Requirement[] {
  if (!Array.isArray(value) || value.length === 0) throw new Error(`${where} is no list of requirements`);
  return value.map((each, place) => requirementOf(each, `requirement ${place + 1} of ${where}`));
}

function requirementOf(value: unknown, what: string): Requirement {
  const type = isObject(value) ? value['type'] : undefined;
  switch (type) {
    case 'insecureAcceptAnything':
    case 'reject':
      requireMembers(value, what, { required: ['type'] });
      return { type };
    case 'signedBaseLayer':
      parseSignedIdentity(
        requireMembers(value, what, { required: ['type', 'baseLayerIdentity'] })['baseLayerIdentity'],
        `"baseLayerIdentity" of ${what}`,
      );
      return { type };
    case 'signedBy':
      return signedBy(value, what);
    case 'sigstoreSigned':
      return sigstoreSigned(value, what);
    default:
      throw new Error(`${what} has the unknown type ${printable(JSON.stringify(type) ?? 'none', 80)}`);
  }
}

const KEY_TYPES = ['GPGKeys', 'signedByGPGKeys', 'X509Certificates', 'signedByX509CAs'];

function signedBy(value: unknown, what: string): Requirement {
  const members = requireMembers(value, what, {
    required: ['type', 'keyType'],
    optional: ['keyPath', 'keyPaths', 'keyData', 'signedIdentity'],
  });
  const { keyType } = members;
  if (typeof keyType !== 'string' || !KEY_TYPES.includes(keyType))
    throw new Error(`"keyType" of ${what} is none of ${KEY_TYPES.join(', ')}`);
  const keys = materialsOf(members, ['keyPath', 'keyPaths', 'keyData'], what);
  if (!keys) throw new Error(`${what} has none of keyPath, keyPaths and keyData`);
  return { type: 'signedBy', keyType, keys, identity: signedIdentityOf(members, what) };
}

const KEYS = ['keyPath', 'keyPaths', 'keyData', 'keyDatas'];
const LOG_KEYS = ['rekorPublicKeyPath', 'rekorPublicKeyPaths', 'rekorPublicKeyData', 'rekorPublicKeyDatas'];

function sigstoreSigned(value: unknown, what: string): Requirement {
  const members = requireMembers(value, what, {
    required: ['type'],
    optional: [...KEYS, 'fulcio', 'pki', ...LOG_KEYS, 'signedIdentity'],
  });
  const keys = materialsOf(members, KEYS, what);
  const fulcio = Object.hasOwn(members, 'fulcio')
    ? fulcioOf(members['fulcio'], `"fulcio" of ${what}`)
    : undefined;
  const isPki = Object.hasOwn(members, 'pki');
  if (isPki) checkPki(members['pki'], `"pki" of ${what}`);
  const ways = [
    ...(keys ? [{ keys }] : []),
    ...(fulcio ? [{ fulcio }] : []),
    ...(isPki ? ['pki' as const] : []),
  ];
  const [by] = ways;
  if (by === undefined || ways.length > 1)
    throw new Error(`${what} must have exactly one of ${KEYS.join(', ')}, fulcio and pki`);
  const logKeys = materialsOf(members, LOG_KEYS, what) ?? [];
  if (fulcio && logKeys.length === 0)
    throw new Error(`${what} has "fulcio", and none of ${LOG_KEYS.join(', ')}`);
  return { type: 'sigstoreSigned', by, logKeys, identity: signedIdentityOf(members, what) };
}

function fulcioOf(value: unknown, what: string): FulcioRule {
  const members = requireMembers(value, what, {
    required: ['oidcIssuer', 'subjectEmail'],
    optional: ['caPath', 'caData'],
  });
  const [authorities] = materialsOf(members, ['caPath', 'caData'], what) ?? [];
  if (!authorities) throw new Error(`${what} has none of caPath and caData`);
  const { oidcIssuer: issuer, subjectEmail: email } = members;
  if (typeof issuer !== 'string' || issuer === '') throw new Error(`"oidcIssuer" of ${what} is no text`);
  if (typeof email !== 'string' || email === '') throw new Error(`"subjectEmail" of ${what} is no text`);
  return { authorities, issuer, email };
}

function checkPki(value: unknown, what: string): void {
  const [roots, intermediates] = [
    ['caRootsPath', 'caRootsData'],
    ['caIntermediatesPath', 'caIntermediatesData'],
  ] as const;
  const members = requireMembers(value, what, {
    optional: [...roots, ...intermediates, 'subjectEmail', 'subjectHostname'],
  });
  if (!materialsOf(members, roots, what)) throw new Error(`${what} has none of ${roots.join(' and ')}`);
  materialsOf(members, intermediates, what);
  if (
    !['subjectEmail', 'subjectHostname'].some(
      (key) => typeof members[key] === 'string' && members[key] !== '',
    )
  )
    throw new Error(`${what} has none of subjectEmail and subjectHostname`);
}

function signedIdentityOf(members: JsonObject, what: string): SignedIdentity {
  if (!Object.hasOwn(members, 'signedIdentity')) return DEFAULT_IDENTITY;
  return parseSignedIdentity(members['signedIdentity'], `"signedIdentity" of ${what}`);
}

/**
 * Returns the files or bytes in the one member of `keys` that the object has; undefined if it has none. An
 * empty path counts as none.
 *
 * @throws Error for several of these members, and for values of another type
 */
function materialsOf(
  members: JsonObject,
  keys: readonly string[],
  what: string,
): readonly Material[] | undefined {
  const given = keys.filter((key) => Object.hasOwn(members, key) && members[key] !== '');
  const empty = keys.filter((key) => members[key] === '' && key.endsWith('Data'));
  const [key] = [...given, ...empty];
  if (key === undefined) return undefined;
  if (given.length + empty.length > 1) throw new Error(`${what} has more than one of ${keys.join(', ')}`);
  const isList = key.endsWith('s');
  const value = members[key];
  const values: unknown = isList ? value : [value];
  const where = `"${key}" of ${what}`;
  if (!Array.isArray(values) || values.length === 0) throw new Error(`${where} is no list with entries`);
  return values.map((each: unknown) => {
    if (typeof each !== 'string') throw new Error(`${where} is no ${isList ? 'list of texts' : 'text'}`);
    if (/Paths?$/.test(key)) return { file: each };
    const base64 = each.replaceAll(/[\r\n]/g, '');
    if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(base64))
      throw new Error(`${where} is not base64`);
    return { bytes: Buffer.from(base64, 'base64') };
  });
}

function objectOf(members: JsonObject, key: string, what: string): JsonObject {
  if (!Object.hasOwn(members, key)) return {};
  const value = members[key];
  if (isObject(value)) return value;
  throw new Error(`"${key}" of ${what} is no object`);
}
