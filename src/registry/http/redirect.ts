import { NetworkError, printable } from '../../errors.ts';
import type { Request } from './exchange.ts';

/** Hops after which a redirect is a fault. */
export const MAX_REDIRECTS = 10;

const redirectStatus = new Set([301, 302, 303, 307, 308]);

/** What to do about a redirect that cannot be followed. */
export const misguided = { hint: 'the registry, or a proxy before it, is set up wrongly: tell who runs it' };

/** Names of headers that must not reach another origin. */
const privateHeaders = new Set(['authorization', 'cookie', 'proxy-authorization']);

/**
 * The request that a redirect asks for, or undefined where the answer is none. What is private stays with the origin it was meant
 * for (OCI distribution specification, "pulling blobs"). Throws NetworkError for a redirect from https to http, to something that
 * is no web address, or of a POST to another origin.
 */
export function redirected(
  request: Request,
  status: number,
  location: string | undefined,
): Request | undefined {
  if (!redirectStatus.has(status) || location === undefined) return undefined;
  const { url: from, method, headers } = request;
  const to = URL.parse(location, from.href);
  if (!to || !/^https?:$/.test(to.protocol)) {
    throw new NetworkError(
      `${from.host} redirects to what is no web address: ${printable(location.split('?')[0]!, 120)}`,
      misguided,
    );
  }
  if (from.protocol === 'https:' && to.protocol === 'http:') {
    throw new NetworkError(
      `${from.host} redirects from https to plain http at ${to.host}: refused`,
      misguided,
    );
  }
  to.username = '';
  to.password = '';
  to.hash = '';
  if (to.origin === from.origin && method !== 'POST') return { ...request, url: to };
  if (method === 'POST') {
    if (to.origin === from.origin && (status === 307 || status === 308)) return { ...request, url: to };
    throw new NetworkError(
      `${from.host} redirects a token request to ${to.host}: refused, since it holds credentials`,
      misguided,
    );
  }
  const kept = Object.entries(headers).filter(([name]) => !privateHeaders.has(name));
  return { ...request, url: to, headers: Object.fromEntries(kept) };
}
