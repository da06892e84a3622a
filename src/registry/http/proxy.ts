import { BlockList, isIP } from 'node:net';
import { UsageError } from '../../errors.ts';
import { hostnameOf, isLoopback } from '../../oci/reference.ts';
import type { Environment } from '../../sys/os-path.ts';

export interface Proxy {
  /** May contain credentials. */
  readonly url: URL;
  /** The environment variable that names it: `https_proxy`. */
  readonly variable: string;
}

/**
 * Returns the proxy for `url`: HTTPS_PROXY for https, HTTP_PROXY for http (or lower case). Undefined for
 * loopback and for hosts in NO_PROXY. These are the rules of Go's httpproxy, which docker and skopeo follow.
 *
 * @throws UsageError for an invalid address
 */
export function proxyFor(url: URL, environment: Environment): Proxy | undefined {
  const name = url.protocol === 'https:' ? 'HTTPS_PROXY' : 'HTTP_PROXY';
  const variable = environment[name] ? name : name.toLowerCase();
  const value = environment[variable];
  if (!value || isLoopback(url.host)) return undefined;
  if (exempt(url, environment['NO_PROXY'] || environment['no_proxy'] || '')) return undefined;
  const text = value.includes('://') ? value : `http://${value}`;
  const proxy = URL.parse(text.replace(/^socks5h:/i, 'socks5:'));
  if (!proxy?.hostname || !/^(?:https?|socks5):$/.test(proxy.protocol)) {
    throw new UsageError(`${variable} is not the address of a proxy`, {
      hint: 'write it as http://proxy.example.com:3128',
    });
  }
  if (!isDecodable(proxy.username) || !isDecodable(proxy.password)) {
    throw new UsageError(`${variable} has a user name or password that is not percent-encoded UTF-8`, {
      hint: 'write %25 for %',
    });
  }
  return { url: proxy, variable };
}

function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text);
    return true;
  } catch {
    return false;
  }
}

function exempt(url: URL, noProxy: string): boolean {
  const host = hostnameOf(url.host);
  const port = url.port || (url.protocol === 'https:' ? '443' : '80');
  return noProxy
    .split(/[,\s]+/)
    .filter(Boolean)
    .some((entry) => matches(entry.toLowerCase(), host, port));
}

function matches(entry: string, host: string, port: string): boolean {
  if (entry === '*') return true;
  const network = /^([\da-f.:]+)\/(\d{1,3})$/.exec(entry);
  if (network) return inNetwork(host, network[1]!, Number(network[2]));
  const [, bracketed, plain, wanted] =
    /^(?:\[([^\]]+)\]|([^:]+|[\da-f:]*:[\da-f:]*:[\da-f:]*))(?::(\d+))?$/.exec(entry) ?? [];
  if (wanted !== undefined && wanted !== port) return false;
  const name = bracketed ?? plain;
  if (name === undefined) return false;
  if (name.startsWith('.') || name.startsWith('*.')) return host.endsWith(name.replace(/^\*/, ''));
  return host === name || (isIP(name) === 0 && host.endsWith(`.${name}`));
}

function inNetwork(host: string, address: string, prefix: number): boolean {
  const family = isIP(address);
  if (family === 0 || isIP(host) !== family || prefix > (family === 4 ? 32 : 128)) return false;
  const list = new BlockList();
  list.addSubnet(address, prefix, family === 4 ? 'ipv4' : 'ipv6');
  return list.check(host, family === 4 ? 'ipv4' : 'ipv6');
}
