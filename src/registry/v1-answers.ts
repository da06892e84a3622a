/** Parses answers of version 1 of the protocol. */
import { IntegrityError, NotFoundError, printable } from '../errors.ts';
import { Digest } from '../oci/digest.ts';
import {
  type JsonObject,
  MAX_LAYERS,
  parseJson,
  parseJsonObject,
  textOf,
  type ValueLimit,
} from '../oci/json.ts';
import { hostnameOf, isTag } from '../oci/reference.ts';

/** The largest number of tags that an error lists. */
const LISTED_TAGS = 8;

const ID_PATTERN = /^(?:[0-9a-f]{64}|[0-9a-f]{16})$/;

/** Returns the tags of a list (an object from tag to image id), sorted, without invalid names. */
export function tagNames(tags: JsonObject): readonly string[] {
  return Object.keys(tags).filter(isTag).toSorted();
}

/**
 * Returns the id of the image that `tag` points to.
 *
 * @throws NotFoundError that lists some existing tags; IntegrityError for a malformed id
 */
export function imageOfTag(tags: JsonObject, tag: string, name: string): string {
  if (!Object.hasOwn(tags, tag)) {
    const names = tagNames(tags);
    const more = names.length > LISTED_TAGS ? ', …' : '';
    throw new NotFoundError(`${name} has no tag ${printable(tag)}`, {
      code: 'TAG_NOT_FOUND',
      hint:
        names.length === 0
          ? 'choose another repository: this one has no tags'
          : `choose one of its tags: ${names.slice(0, LISTED_TAGS).join(', ')}${more}`,
    });
  }
  return imageId(tags[tag], `the image that ${name}:${printable(tag)} points to`);
}

/**
 * Checks an image id: 64 hex digits, in very old images 16.
 *
 * @throws IntegrityError that names `what`
 */
function imageId(value: unknown, what: string): string {
  if (typeof value === 'string' && ID_PATTERN.test(value)) return value;
  const found =
    typeof value === 'string' ? `"${printable(value, 80)}", not 64 or 16 hex digits` : 'not a string';
  throw new IntegrityError(`the id of ${what} is ${found}`);
}

/**
 * Parses the ancestry of image `id`, which lists `id` first. Returns the ids in reverse, base first.
 *
 * @throws IntegrityError
 */
export function parseAncestry(body: Uint8Array, id: string, what: string): readonly string[] {
  const list = parseJson(body, what);
  if (!Array.isArray(list)) throw new IntegrityError(`${what} is not a JSON array`);
  if (list.length === 0) throw new IntegrityError(`${what} is empty: an image has one layer at least`);
  if (list.length > MAX_LAYERS) {
    throw new IntegrityError(`${what} lists ${list.length} layers, ${MAX_LAYERS} are allowed`);
  }
  const ids = list.map((value: unknown, place) => imageId(value, `layer ${list.length - place} in ${what}`));
  if (ids[0] !== id) throw new IntegrityError(`${what} begins with another image, ${ids[0]}`);
  const seen = new Set<string>();
  for (const each of ids) {
    if (seen.has(each)) throw new IntegrityError(`${what} names ${each} more than once`);
    seen.add(each);
  }
  return ids.toReversed();
}

/**
 * Parses the JSON of image `id`, whose parent is `parent`.
 *
 * @throws IntegrityError, also if it names another id or parent
 */
export function parseImageJson(
  body: Uint8Array,
  {
    id,
    parent,
    limit,
  }: { readonly id: string; readonly parent: string | undefined; readonly limit?: ValueLimit },
  what: string,
): JsonObject {
  const json = parseJsonObject(body, what, limit);
  const said = textOf(json['id']);
  if (said !== undefined && said !== id) {
    throw new IntegrityError(`${what} belongs to another image, ${printable(said, 80)}`);
  }
  const saidParent = textOf(json['parent']);
  if (saidParent !== undefined && saidParent !== parent) {
    const expected = parent === undefined ? 'it is the base' : `it should be ${parent}`;
    throw new IntegrityError(
      `${what} names the parent ${printable(saidParent, 80)}, but by the ancestry ${expected}`,
    );
  }
  return json;
}

/**
 * Returns the sha256 in an `X-Docker-Checksum-Payload` header: over the image's JSON as sent, a newline, and
 * the layer as sent. The server of 2014 sends a list as text, in the syntax of JSON or Python, perhaps with a
 * tarsum. Undefined without a sha256, or with more than one.
 */
export function parsePayloadChecksum(header: string | undefined): Digest | undefined {
  const found = [...(header ?? '').matchAll(/(?<![\w.+-])sha256:([0-9a-f]{64})(?![0-9a-f])/gi)];
  const digests = new Set(found.map((match) => match[1]!.toLowerCase()));
  const [hex] = digests;
  return digests.size === 1 ? Digest.parse(`sha256:${hex}`) : undefined;
}

/**
 * Returns the size in an `X-Docker-Size` header, in bytes; undefined if it is missing or -1.
 *
 * @throws IntegrityError
 */
export function parseLayerSize(header: string | undefined, what: string): number | undefined {
  const text = header?.trim() ?? '';
  if (text === '' || text === '-1') return undefined;
  if (/^\d{1,15}$/.test(text)) return Number(text);
  throw new IntegrityError(`the size of ${what} is "${printable(text, 40)}", which is not a number of bytes`);
}

/** Limit on the registries of one index. */
const MAX_ENDPOINTS = 16;

/**
 * Returns the tokens of `X-Docker-Token` headers, joined by commas, without those that cannot be sent back.
 * The standalone registry of 2014 adds the word `Token` before its own, which is removed. Undefined without
 * any.
 */
export function parseTokens(values: readonly string[]): string | undefined {
  const tokens = values
    .map((value) => value.trim().replace(/^Token\s+/i, ''))
    .filter((token) => /^[\x20-\x7e]+$/.test(token));
  return tokens.length === 0 ? undefined : tokens.join(',');
}

/**
 * Returns the registries in `X-Docker-Endpoints` headers, each once: `host` or `host:port`, separated by
 * commas; invalid ones are skipped. They use the index's scheme, but http only if `mayUseHttp`. Without the
 * header the index is the registry.
 */
export function parseEndpoints(
  values: readonly string[],
  index: URL,
  mayUseHttp: (host: string) => boolean,
): readonly URL[] {
  const hosts = values.flatMap((value) => value.split(',')).map((item) => item.trim());
  const named = hosts.filter(Boolean);
  if (named.length === 0) return [index];
  const urls = named.flatMap((host) => {
    if (!/^[^\s/?#@\\]+$/.test(host) || hostnameOf(host) === '') return [];
    const scheme = index.protocol === 'http:' && mayUseHttp(host) ? 'http' : 'https';
    const url = URL.parse(`${scheme}://${host}/v1/`);
    return url ? [url.href] : [];
  });
  return [...new Set(urls)].slice(0, MAX_ENDPOINTS).map((href) => new URL(href));
}

/** A cookie to send back. */
interface Cookie {
  readonly value: string;
  readonly path: string;
}

/** Limits per server: the least that browsers must support (RFC 6265, 6.1). */
const MAX_COOKIES = 50;
const MAX_COOKIE_BYTES = 4096;

const NAME_PATTERN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
/**
 * Values that can be sent back unchanged: visible ASCII and blanks without `;` (RFC 6265, 4.1.1, allows
 * fewer).
 */
const VALUE_PATTERN = /^[\x20-\x3a\x3c-\x7e]*$/;

/**
 * Parses a `Set-Cookie` header; undefined for a cookie that cannot be sent back. `over`: the header deletes
 * it.
 */
export function parseSetCookie(
  header: string,
  now: number,
): { readonly name: string; readonly cookie: Cookie; readonly over: boolean } | undefined {
  if (header.length > MAX_COOKIE_BYTES) return undefined;
  const [pair = '', ...attributes] = header.split(';');
  const equals = pair.indexOf('=');
  const name = pair.slice(0, equals).trim();
  const value = pair.slice(equals + 1).trim();
  if (equals < 1 || !NAME_PATTERN.test(name) || !VALUE_PATTERN.test(value)) return undefined;
  const settings = new Map(
    attributes.map((attribute) => {
      const [key = '', ...rest] = attribute.split('=');
      return [key.trim().toLowerCase(), rest.join('=').trim()] as const;
    }),
  );
  const path = settings.get('path');
  return {
    name,
    cookie: { value, path: path?.startsWith('/') ? path : '/' },
    over: isOver(settings.get('max-age'), settings.get('expires'), now),
  };
}

function isOver(maxAge: string | undefined, expires: string | undefined, now: number): boolean {
  if (maxAge !== undefined && /^-?\d+$/.test(maxAge)) return Number(maxAge) <= 0;
  return expires !== undefined && Date.parse(expires) <= now;
}

function isUnder(path: string, cookiePath: string): boolean {
  if (path === cookiePath) return true;
  return path.startsWith(cookiePath.endsWith('/') ? cookiePath : `${cookiePath}/`);
}

/**
 * The cookies of one session, in memory. Each is sent only to the origin that set it; its `Domain` is
 * ignored.
 */
export class Cookies {
  readonly #jars = new Map<string, Map<string, Cookie>>();

  /** Stores the cookies of an answer from `url`, and returns their values. */
  take(url: URL, headers: readonly string[]): readonly string[] {
    const values: string[] = [];
    for (const header of headers) {
      const parsed = parseSetCookie(header, Date.now());
      if (!parsed) continue;
      values.push(parsed.cookie.value);
      const jar = this.#jars.get(url.origin) ?? new Map<string, Cookie>();
      this.#jars.set(url.origin, jar);
      if (parsed.over) jar.delete(parsed.name);
      else if (jar.has(parsed.name) || jar.size < MAX_COOKIES) jar.set(parsed.name, parsed.cookie);
    }
    return values;
  }

  /** Returns the value of the Cookie header for a request to `url`; undefined without cookies. */
  header(url: URL): string | undefined {
    const cookies = [...(this.#jars.get(url.origin) ?? [])].filter(([, { path }]) =>
      isUnder(url.pathname, path),
    );
    return cookies.length === 0
      ? undefined
      : cookies.map(([name, { value }]) => `${name}=${value}`).join('; ');
  }
}
