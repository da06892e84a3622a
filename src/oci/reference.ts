/**
 * The name of an image, in the grammar of distribution/reference:
 *
 *     reference  = name [ ":" tag ] [ "@" digest ]
 *     name       = [ domain "/" ] path
 *     domain     = host [ ":" port ]
 *     host       = label *( "." label ) | IPv4 | "[" IPv6 "]"
 *     label      = letters and digits, with "-" inside
 *     port       = 1*digit
 *     path       = component *( "/" component )                 at most 255 characters
 *     component  = alphanumeric *( separator alphanumeric )
 *     alphanumeric = 1*( "a"…"z" | "0"…"9" )
 *     separator  = "." | "_" | "__" | 1*"-"
 *     tag        = ( letter | digit | "_" ) *127( letter | digit | "_" | "." | "-" )
 *     digest     = ( "sha256" | "sha512" ) ":" lower-case hex
 *
 * The first part of a name is a domain if it is "localhost" or has a ".", a ":" or an upper-case letter. All
 * other names are at docker.io, where a path of one component gets the prefix "library/".
 */
import { UsageError, printable } from '../errors.ts';
import { Digest, digestFault } from './digest.ts';

/** The name of an image: parsed, normalised, complete. */
export interface Reference {
  /** `docker.io`, `host`, `host:port` or `[::1]:port`. */
  readonly registry: string;
  /** `library/alpine`. */
  readonly repository: string;
  /** `latest` if the text had neither tag nor digest. */
  readonly tag?: string | undefined;
  /** Overrides the tag. */
  readonly digest?: Digest | undefined;
}

/** The registry of names without a domain; its API is at registry-1.docker.io. */
const DOCKER_HUB = 'docker.io';

/** The names of Docker Hub in references and in docker's files. */
export const HUB_ALIASES: ReadonlySet<string> = new Set([
  DOCKER_HUB,
  'index.docker.io',
  'registry-1.docker.io',
]);

const label = '[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?';
const ipv6 = String.raw`\[[a-fA-F0-9:]+\]`;
const host = String.raw`(?:${label}(?:\.${label})*|${ipv6})`;
const domain = new RegExp(`^${host}(?::(?<port>[0-9]+))?$`);
const component = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const tagRule = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;

const MAX_PATH = 255;

export const Reference = {
  /**
   * Parses and normalises a reference, also with skopeo's prefix `docker://`.
   *
   * @throws UsageError that names the wrong part
   */
  parse(given: string): Reference {
    const text = given.replace(/^docker:\/\/(?!$)/, '');
    refuseOtherForms(text);
    const at = text.indexOf('@');
    const digest = at === -1 ? undefined : parseDigest(text.slice(at + 1), text);
    const named = at === -1 ? text : text.slice(0, at);
    const colon = named.indexOf(':', named.lastIndexOf('/') + 1);
    if (named.startsWith('[') && !named.includes('/')) {
      throw invalid(text, 'the repository name is empty', `name a repository: ${printable(named, 80)}/NAME`);
    }
    const tag = colon !== -1 ? parseTag(named.slice(colon + 1), text) : undefined;
    const { registry, repository } = parseName(colon !== -1 ? named.slice(0, colon) : named, text);
    return {
      registry,
      repository,
      ...(tag === undefined && digest === undefined ? { tag: 'latest' } : {}),
      ...(tag === undefined ? {} : { tag }),
      ...(digest === undefined ? {} : { digest }),
    };
  },

  /** Returns the usual form of the name: `library/alpine` for Docker Hub, `host[:port]/path` elsewhere. */
  name(reference: Pick<Reference, 'registry' | 'repository'>): string {
    const { registry, repository } = reference;
    const unambiguous = registry === DOCKER_HUB && !namesDomain(repository);
    return unambiguous ? repository : `${registry}/${repository}`;
  },

  /** Returns `name:tag`, or `name@digest` with a digest. */
  format(reference: Reference): string {
    const { tag, digest } = reference;
    return Reference.name(reference) + (digest === undefined ? `:${tag ?? 'latest'}` : `@${digest}`);
  },
};

/** Hides credentials: of `user:password@host/…`, which is no reference, only the host may be printed. */
function withoutCredentials(text: string): string {
  const at = text.lastIndexOf('@');
  const tail = text.slice(at + 1);
  // No host has 64 characters without a dot (RFC 1035, 2.3.4).
  const isDigest =
    /^(?:sha|md5|blake)[^/]*$/i.test(tail) ||
    (isBareHex(tail) && text.indexOf('@') === at) ||
    (/^[0-9a-f]{6,}$/i.test(tail) && !text.slice(0, at).includes(':'));
  return at === -1 || tail === '' || isDigest ? text : `***@${tail}`;
}

/** True for the digits of a sha256 digest alone. */
function isBareHex(text: string): boolean {
  return /^[0-9a-f]{64}$/i.test(text);
}

function invalid(text: string, fault: string, hint?: string): UsageError {
  const shown = withoutCredentials(text);
  if (shown !== text) {
    return new UsageError(`invalid image name "${printable(shown, 300)}": only a digest can follow the "@"`, {
      code: 'INVALID_REFERENCE',
      hint: 'give credentials by --user or DLROOTFS_CREDS, and the name without them',
    });
  }
  return new UsageError(`invalid image name "${printable(text, 300)}": ${fault}`, {
    code: 'INVALID_REFERENCE',
    hint,
  });
}

/**
 * Returns the name in an address of Docker Hub's web page: `hub.docker.com/_/alpine`,
 * `hub.docker.com/r/org/app/tags`.
 */
function nameOnWebPage(text: string): string | undefined {
  return /^hub\.docker\.com\/(?:_|r)\/([\w.-]+(?:\/[\w.-]+)?)/.exec(text.replace(/\/tags\b.*$/, ''))?.[1];
}

function refuseOtherForms(text: string): void {
  if (text === '')
    throw invalid(text, 'it is empty', 'name an image, as alpine or registry.example.com/team/app:1.0');
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):\/\//.exec(text);
  if (scheme !== null) {
    const rest = text.slice(scheme[0].length);
    throw invalid(
      text,
      `it starts with "${scheme[0]}"`,
      `write it without: ${printable(nameOnWebPage(rest) ?? rest, 300)}`,
    );
  }
  const name = nameOnWebPage(text);
  if (name !== undefined)
    throw invalid(text, 'hub.docker.com is the web page of Docker Hub, no registry', `write ${name}`);
  if (/^[a-f0-9]{64}$/.test(text)) {
    throw invalid(
      text,
      '64 hex digits are an image id, not a name',
      `to pull by digest write NAME@sha256:${text}`,
    );
  }
}

function parseDigest(digest: string, text: string): Digest {
  const fault = digest === '' ? 'nothing follows the "@"' : digestFault(digest);
  if (fault !== undefined) {
    const hex = digest.replace(/^sha256:/i, '');
    const name = printable(text.slice(0, text.indexOf('@')), 300);
    throw invalid(
      text,
      `bad digest "${printable(digest, 160)}": ${fault}`,
      isBareHex(hex)
        ? `write ${name}@sha256:${hex.toLowerCase()}`
        : 'write IMAGE@sha256: and 64 hex digits; dlrootfs inspect -q IMAGE prints the digest',
    );
  }
  return Digest.parse(digest);
}

/** True if the text is a valid tag. */
export function isTag(text: string): boolean {
  return tagRule.test(text);
}

function parseTag(tag: string, text: string): string {
  if (isTag(tag)) return tag;
  if (tag === '') throw invalid(text, 'nothing follows the ":"', 'leave the colon out for the tag latest');
  if (tag.length > 128)
    throw invalid(text, `the tag has ${tag.length} characters, 128 are allowed`, 'shorten the tag');
  const digest = /^sha256:[0-9a-f]{64}$/.test(tag);
  throw invalid(
    text,
    `bad tag "${printable(tag, 160)}": letters, digits, "_", "." and "-" are allowed, "." and "-" not first`,
    digest
      ? `write ${printable(text.slice(0, -tag.length - 1), 300)}@${tag}`
      : 'write IMAGE:TAG, as in alpine:3.20',
  );
}

function parseName(name: string, text: string): { registry: string; repository: string } {
  const named = namesDomain(name);
  const slash = name.indexOf('/');
  const first = name.slice(0, slash);
  const path = named ? name.slice(slash + 1) : name;
  checkPath(path, text);
  if (named && !HUB_ALIASES.has(first)) {
    checkDomain(first, text);
    return { registry: first, repository: path };
  }
  return { registry: DOCKER_HUB, repository: path.includes('/') ? path : `library/${path}` };
}

function namesDomain(name: string): boolean {
  const slash = name.indexOf('/');
  return slash !== -1 && (name.startsWith('localhost/') || /[.:A-Z]/.test(name.slice(0, slash)));
}

/**
 * True for `host[:port]` as in a reference, if a URL can have the host: not `1.2.3.4.5`, whose last part is a
 * number.
 */
export function isRegistry(text: string): boolean {
  return domain.test(text) && URL.canParse(`http://${text}`);
}

/** True for the name of a repository, without its registry. */
export function isRepository(text: string): boolean {
  return text.length <= MAX_PATH && text.split('/').every((part) => component.test(part));
}

function checkDomain(registry: string, text: string): void {
  const match = domain.exec(registry);
  if (match === null) {
    const isPath = /^\.{0,2}$/.test(registry);
    throw invalid(
      text,
      `bad registry "${printable(registry, 160)}": expected host[:port]`,
      isPath
        ? 'name an image, as in alpine; for an image on this machine write oci:DIR or docker-archive:FILE'
        : 'write HOST[:PORT]/REPOSITORY, as in registry.example.com:5000/team/app',
    );
  }
  if (Number(match.groups?.['port'] ?? 0) > 65_535) {
    throw invalid(text, `bad registry "${printable(registry, 160)}": ports end at 65535`);
  }
  if (!isRegistry(registry)) {
    throw invalid(text, `bad registry "${printable(registry, 160)}": no URL can have this host`);
  }
}

function checkPath(path: string, text: string): void {
  if (path === '') throw invalid(text, 'the repository name is empty');
  if (path.length > MAX_PATH) {
    throw invalid(text, `the repository name has ${path.length} characters, ${MAX_PATH} are allowed`);
  }
  for (const part of path.split('/')) {
    if (component.test(part)) continue;
    if (part === '') {
      const hint = 'leave out the slash at the beginning or the end, and double ones';
      throw invalid(text, 'a part of the repository name is empty', hint);
    }
    if (component.test(part.toLowerCase())) {
      throw invalid(
        text,
        `repository name "${printable(path, 160)}" must be lowercase`,
        `write the repository as ${printable(path.toLowerCase(), 160)}`,
      );
    }
    throw invalid(
      text,
      `bad part "${printable(part, 160)}" of the repository name: lower-case letters and digits are allowed, ` +
        'with ".", "_", "__" or "-" between them',
      'correct the name, as in registry.example.com/team/app:1.0',
    );
  }
}

/** Returns the host of `host`, `host:port` or `[::1]:port`, in lower case, without brackets. */
export function hostnameOf(address: string): string {
  const bracketed = /^\[([^\]]*)\]/.exec(address);
  return (bracketed?.[1] ?? address.replace(/:\d*$/, '')).toLowerCase();
}

/** True if `host[:port]` names this machine: only then plain http is tried without `--plain-http`. */
export function isLoopback(address: string): boolean {
  const name = hostnameOf(address);
  if (name === 'localhost' || name.endsWith('.localhost')) return true;
  return /^(?:::ffff:)?127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(name) || name === '::1';
}
