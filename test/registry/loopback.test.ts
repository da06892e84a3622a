import { isLoopback } from '../../src/oci/reference.ts';
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UsageError } from '../../src/errors.ts';
import { proxyFor } from '../../src/registry/http/proxy.ts';

for (const host of [
  'localhost',
  'LocalHost:5000',
  'a.localhost',
  '127.0.0.1',
  '127.9.8.7:80',
  '[::1]:5000',
  '[::ffff:127.0.0.1]',
]) {
  test(`${host} is this machine`, () => {
    assert.equal(isLoopback(host), true);
  });
}

for (const host of [
  'docker.io',
  'localhost.example.com',
  '127.0.0.1.example.com',
  '128.0.0.1',
  '[::2]',
  '2001:db8::1',
  '[2001:db8::1]',
  '[::ffff:128.0.0.1]',
  '10.127.0.0',
  '',
]) {
  test(`${host || 'nothing'} is not this machine`, () => {
    assert.equal(isLoopback(host), false);
  });
}

type Case = readonly [
  what: string,
  url: string,
  environment: Readonly<Record<string, string>>,
  proxy: string | undefined,
];

const p = 'http://proxy.example.com:3128';
const proxies: readonly Case[] = [
  ['nothing is set', 'https://a.example.com/', {}, undefined],
  ['https by HTTPS_PROXY', 'https://a.example.com/', { HTTPS_PROXY: p }, `${p}/`],
  ['http not by HTTPS_PROXY', 'http://a.example.com/', { HTTPS_PROXY: p }, undefined],
  ['http by http_proxy', 'http://a.example.com/', { http_proxy: p }, `${p}/`],
  ['https not by HTTP_PROXY, as in Go', 'https://a.example.com/', { HTTP_PROXY: p }, undefined],
  ['without a scheme', 'https://a.example.com/', { HTTPS_PROXY: 'proxy.example.com:3128' }, `${p}/`],
  [
    'credentials are kept',
    'https://a.example.com/',
    { HTTPS_PROXY: 'http://u:p@proxy.example.com:3128' },
    'http://u:p@proxy.example.com:3128/',
  ],
  [
    'socks5h',
    'https://a.example.com/',
    { HTTPS_PROXY: 'socks5h://proxy.example.com:1080' },
    'socks5://proxy.example.com:1080',
  ],
  ['loopback never', 'https://localhost:5000/', { HTTPS_PROXY: p }, undefined],
  ['NO_PROXY=*', 'https://a.example.com/', { HTTPS_PROXY: p, NO_PROXY: '*' }, undefined],
  ['the domain itself', 'https://example.com/', { HTTPS_PROXY: p, NO_PROXY: 'example.com' }, undefined],
  ['a subdomain', 'https://a.example.com/', { HTTPS_PROXY: p, no_proxy: 'x.y, Example.com' }, undefined],
  [
    'a domain that only ends alike',
    'https://anexample.com/',
    { HTTPS_PROXY: p, NO_PROXY: 'example.com' },
    `${p}/`,
  ],
  [
    'a leading dot: subdomains',
    'https://a.example.com/',
    { HTTPS_PROXY: p, NO_PROXY: '.example.com' },
    undefined,
  ],
  [
    'a leading dot: not the domain itself',
    'https://example.com/',
    { HTTPS_PROXY: p, NO_PROXY: '.example.com' },
    `${p}/`,
  ],
  [
    'the right port',
    'https://a.example.com:5000/',
    { HTTPS_PROXY: p, NO_PROXY: 'a.example.com:5000' },
    undefined,
  ],
  ['another port', 'https://a.example.com/', { HTTPS_PROXY: p, NO_PROXY: 'a.example.com:5000' }, `${p}/`],
  ['an address', 'https://10.1.2.3/', { HTTPS_PROXY: p, NO_PROXY: '10.1.2.3' }, undefined],
  ['a network', 'https://10.1.2.3/', { HTTPS_PROXY: p, NO_PROXY: '10.1.0.0/16' }, undefined],
  ['another network', 'https://10.2.2.3/', { HTTPS_PROXY: p, NO_PROXY: '10.1.0.0/16' }, `${p}/`],
  ['an IPv6 network', 'https://[fd00::7]/', { HTTPS_PROXY: p, NO_PROXY: 'fd00::/8' }, undefined],
  ['an IPv6 address', 'https://[fd00::7]/', { HTTPS_PROXY: p, NO_PROXY: 'fd00::7' }, undefined],
  ['a network that is none', 'https://10.1.2.3/', { HTTPS_PROXY: p, NO_PROXY: '10.0.0.0/33' }, `${p}/`],
  ['an IPv6 network that is none', 'https://[fd00::7]/', { HTTPS_PROXY: p, NO_PROXY: 'fd00::/129' }, `${p}/`],
  [
    'entries that make no sense',
    'https://a.example.com/',
    { HTTPS_PROXY: p, NO_PROXY: '10.0.0.0/99,[,:,/8' },
    `${p}/`,
  ],
];

for (const [what, url, environment, proxy] of proxies) {
  test(`proxy: ${what}`, () => {
    assert.equal(proxyFor(new URL(url), environment)?.url.href, proxy);
  });
}

test('proxy: the variable that names it; an empty one counts as not set', () => {
  const url = new URL('https://a.example.com/');
  assert.equal(proxyFor(url, { HTTPS_PROXY: p, https_proxy: 'http://other' })?.variable, 'HTTPS_PROXY');
  assert.equal(proxyFor(url, { HTTPS_PROXY: '', https_proxy: p })?.variable, 'https_proxy');
});

test('an address that is no proxy is a usage error without its text', () => {
  assert.throws(
    () => proxyFor(new URL('https://a.example.com/'), { HTTPS_PROXY: 'ftp://user:secret@proxy' }),
    (error) =>
      error instanceof UsageError && /HTTPS_PROXY/.test(error.message) && !/secret/.test(error.message),
  );
});
