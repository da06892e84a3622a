import { hostnameOf } from './http/loopback.ts';

/** Registries that are asked at most. */
const MAX_ENDPOINTS = 16;

/** What an index says of a repository in its headers. */
export interface RepositoryData {
  /** What goes after `Authorization: Token`; undefined when there is none. */
  readonly token: string | undefined;
  /** Where the repository's images are, in order; each ends in `/v1/`. */
  readonly endpoints: readonly URL[];
}

/**
 * The tokens of `X-Docker-Token` headers, joined. The standalone registry of 2014 puts the word `Token` before its own, which is not
 * part of it. Undefined when there is none that can be sent back.
 */
export function parseTokens(values: readonly string[]): string | undefined {
  const tokens = values
    .map((value) => value.trim().replace(/^Token\s+/i, ''))
    .filter((token) => /^[\x20-\x7e]+$/.test(token));
  return tokens.length === 0 ? undefined : tokens.join(',');
}

/**
 * The registries that `X-Docker-Endpoints` headers name, each once: `host` or `host:port`, separated by commas; anything else is left
 * out. They are asked over the index's own scheme, but over http only where `mayUseHttp`. Without the header the index is the registry.
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
