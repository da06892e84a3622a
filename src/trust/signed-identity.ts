import { printable } from '../errors.ts';
import { isObject } from '../oci/json.ts';
import { isRegistry, Reference } from '../oci/reference.ts';
import { requireMembers } from './strict-json.ts';

/** A name of an image: reference.Named of containers/image. */
interface Named {
  /** `host[:port]/path` */
  readonly name: string;
  /** `:tag`, `@digest`, both, or neither. */
  readonly rest: string;
}

/** Returns the requested name. If it has a digest, its tag has no effect. */
export function namedOf({ registry, repository, tag, digest }: Reference): Named {
  return {
    name: `${registry}/${repository}`,
    rest: digest === undefined ? `:${tag ?? 'latest'}` : `@${digest}`,
  };
}

/** Parses a name; undefined if it is invalid. Unlike on a command line, no tag is added. */
function parseNamed(text: string): Named | undefined {
  if (text.includes('://')) return undefined;
  try {
    const { registry, repository } = Reference.parse(text);
    return { name: `${registry}/${repository}`, rest: /(?::[^/@]*)?(?:@.*)?$/.exec(text)![0] };
  } catch {
    return undefined;
  }
}

/**
 * True if a signature for `signed` is accepted for the image `intended`: `signedIdentity` of
 * containers-policy.json(5).
 */
export type SignedIdentity = (intended: Named, signed: Named) => boolean;

/**
 * Parses a `signedIdentity`.
 *
 * @throws Error that says what is wrong
 */
export function parseSignedIdentity(value: unknown, what: string): SignedIdentity {
  if (!isObject(value)) throw new Error(`${what} is no object`);
  const { type } = value;
  const parse = typeof type === 'string' && Object.hasOwn(MATCHES, type) ? MATCHES[type] : undefined;
  if (parse) return parse(value, what);
  throw new Error(`${what} has the unknown type ${printable(JSON.stringify(type) ?? 'none', 80)}`);
}

/** True if the identity accepts the name in a signature, its `docker-reference`, for the requested name. */
export function fits(identity: SignedIdentity, intended: Named, reference: string): boolean {
  const signed = parseNamed(reference);
  return signed !== undefined && identity(intended, signed);
}

const isSame: SignedIdentity = (intended, signed) =>
  signed.rest !== '' && signed.name === intended.name && signed.rest === intended.rest;

const matchRepository: SignedIdentity = (intended, signed) => signed.name === intended.name;

/** For a name with a digest, the signature may be for any tag: it is for the manifest with that digest. */
const matchRepoDigestOrExact: SignedIdentity = (intended, signed) =>
  intended.rest.startsWith('@')
    ? signed.rest !== '' && matchRepository(intended, signed)
    : isSame(intended, signed);

const MATCHES: Readonly<Record<string, (value: unknown, what: string) => SignedIdentity>> = {
  matchExact: (value, what) => {
    requireMembers(value, what, { required: ['type'] });
    return isSame;
  },
  matchRepoDigestOrExact: (value, what) => {
    requireMembers(value, what, { required: ['type'] });
    return matchRepoDigestOrExact;
  },
  matchRepository: (value, what) => {
    requireMembers(value, what, { required: ['type'] });
    return matchRepository;
  },
  exactReference: (value, what) => {
    const named = nameIn(value, 'dockerReference', what);
    if (named.rest === '') throw new Error(`"dockerReference" of ${what} has neither tag nor digest`);
    return (_, signed) => isSame(named, signed);
  },
  exactRepository: (value, what) => {
    const named = nameIn(value, 'dockerRepository', what);
    return (_, signed) => matchRepository(named, signed);
  },
  remapIdentity: (value, what) => {
    const members = requireMembers(value, what, { required: ['type', 'prefix', 'signedPrefix'] });
    const prefix = prefixIn(members['prefix'], 'prefix', what);
    const signedPrefix = prefixIn(members['signedPrefix'], 'signedPrefix', what);
    return (intended, signed) => {
      const { name, rest } = intended;
      if (name !== prefix && !name.startsWith(`${prefix}/`)) return matchRepoDigestOrExact(intended, signed);
      const mapped = signedPrefix + name.slice(prefix.length);
      return parseNamed(mapped)?.name === mapped && matchRepoDigestOrExact({ name: mapped, rest }, signed);
    };
  },
};

/** The default of containers-policy.json(5). */
export const DEFAULT_IDENTITY: SignedIdentity = matchRepoDigestOrExact;

function nameIn(value: unknown, key: string, what: string): Named {
  const text = requireMembers(value, what, { required: ['type', key] })[key];
  const named = typeof text === 'string' ? parseNamed(text) : undefined;
  if (named) return named;
  throw new Error(`"${key}" of ${what} is no name of an image`);
}

/** Returns `host[:port]`, perhaps followed by a path. */
function prefixIn(text: unknown, key: string, what: string): string {
  if (typeof text === 'string') {
    const [host = '', ...path] = text.split('/');
    if (isRegistry(host) && (path.length === 0 || parseNamed(`x.example/${path.join('/')}`)?.rest === ''))
      return text;
  }
  throw new Error(`"${key}" of ${what} is no host, nor a name that begins with one`);
}
