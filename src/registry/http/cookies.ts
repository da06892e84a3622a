/** A cookie as it is sent back. */
interface Cookie {
  readonly value: string;
  readonly path: string;
}

/** Limits of one server: the least that browsers must support (RFC 6265, 6.1). */
const MAX_COOKIES = 50;
const MAX_COOKIE_BYTES = 4096;

const NAME_PATTERN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
/** Values that can be sent back unchanged: visible ASCII and blanks, but no `;` (broader than RFC 6265, 4.1.1). */
const VALUE_PATTERN = /^[\x20-\x3a\x3c-\x7e]*$/;

/** Reads a `Set-Cookie` header; undefined for a cookie that cannot be sent back. `over`: it deletes the cookie. */
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

/** The cookies of one session, in memory. Each goes back to the origin that set it only; its `Domain` is ignored. */
export class Cookies {
  readonly #jars = new Map<string, Map<string, Cookie>>();

  /** Stores the cookies of an answer from `url`. */
  take(url: URL, headers: readonly string[]): void {
    for (const header of headers) {
      const parsed = parseSetCookie(header, Date.now());
      if (!parsed) continue;
      const jar = this.#jars.get(url.origin) ?? new Map<string, Cookie>();
      this.#jars.set(url.origin, jar);
      if (parsed.over) jar.delete(parsed.name);
      else if (jar.has(parsed.name) || jar.size < MAX_COOKIES) jar.set(parsed.name, parsed.cookie);
    }
  }

  /** The value of the Cookie header for a request to `url`; undefined for none. */
  header(url: URL): string | undefined {
    const cookies = [...(this.#jars.get(url.origin) ?? [])].filter(([, { path }]) =>
      isUnder(url.pathname, path),
    );
    return cookies.length === 0
      ? undefined
      : cookies.map(([name, { value }]) => `${name}=${value}`).join('; ');
  }
}
