import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseContentRange } from '../../src/registry/blob-source.ts';
import { rateLimitText, nextPage, parseRetryAfter } from '../../src/registry/http/answer.ts';
import { tagsOf } from '../../src/registry/v2.ts';

const now = Date.UTC(2026, 10, 24, 12, 0, 0);

const waits: readonly (readonly [value: string | undefined, milliseconds: number | undefined])[] = [
  [undefined, undefined],
  ['', undefined],
  ['0', 0],
  [' 120 ', 120_000],
  ['-1', undefined],
  ['1.5', undefined],
  ['soon', undefined],
  ['Tue, 24 Nov 2026 12:00:30 GMT', 30_000],
  ['Tuesday, 24-Nov-26 12:00:30 GMT', 30_000],
  ['Tue Nov 24 12:00:30 2026', 30_000],
  ['Tue, 24 Nov 2026 11:59:00 GMT', 0],
  ['Tue, 99 Nov 2026 11:59:00 GMT', undefined],
];

for (const [value, milliseconds] of waits) {
  test(`Retry-After: ${value} is ${milliseconds} ms`, () => {
    assert.equal(parseRetryAfter(value, now), milliseconds);
  });
}

test('Retry-After: any date that Date writes is read to the second, and nothing is negative', () => {
  fc.assert(
    fc.property(fc.integer({ min: -1e6, max: 1e9 }), (seconds) => {
      const text = new Date(now + seconds * 1000).toUTCString();
      assert.equal(parseRetryAfter(text, now), Math.max(0, seconds * 1000));
      assert.equal(parseRetryAfter(String(Math.abs(seconds)), now), Math.abs(seconds) * 1000);
    }),
    { numRuns: 200 },
  );
  fc.assert(
    fc.property(fc.string(), (text) => {
      assert.ok((parseRetryAfter(text, now) ?? 0) >= 0);
    }),
    { numRuns: 300 },
  );
});

const ranges: readonly (readonly [value: string | undefined, expected: readonly unknown[] | undefined])[] = [
  [undefined, undefined],
  ['bytes 10-19/100', [10, 20, 100]],
  ['bytes 10-19/*', [10, 20, undefined]],
  ['Bytes  10-19/20', [10, 20, 20]],
  ['10-19/100', [10, 20, 100]],
  ['bytes */100', [undefined, undefined, 100]],
  ['bytes 19-10/100', undefined],
  ['bytes 10-100/100', undefined],
  ['bytes 10-/100', undefined],
  ['items 10-19/100', undefined],
  ['bytes 10-19', undefined],
  ['bytes 99999999999999999999-999999999999999999999/*', undefined],
];

for (const [value, expected] of ranges) {
  test(`Content-Range: ${value}`, () => {
    const range = parseContentRange(value);
    assert.deepEqual(range && [range.start, range.end, range.size], expected);
  });
}

const limits: readonly (readonly [
  headers: Readonly<Record<string, string>>,
  sentence: string | undefined,
])[] = [
  [{}, undefined],
  [{ 'ratelimit-limit': 'many' }, undefined],
  [
    {
      'ratelimit-limit': '100;w=21600',
      'ratelimit-remaining': '0;w=21600',
      'docker-ratelimit-source': '203.0.113.7',
    },
    '0 of 100 requests left in 6 hours, counted for 203.0.113.7',
  ],
  [{ 'ratelimit-remaining': '3;w=3600' }, '3 requests left in an hour'],
  [{ 'ratelimit-limit': '5;w=90' }, '5 requests are allowed in 90 s'],
  [{ 'x-ratelimit-limit': '10', 'x-ratelimit-remaining': '1' }, '1 of 10 requests left'],
  [
    { 'ratelimit-limit': '1;w=60', 'ratelimit-remaining': '0', 'docker-ratelimit-source': 'a\u001b[31mb' },
    String.raw`0 of 1 requests left in a minute, counted for a\x1b[31mb`,
  ],
];

for (const [headers, sentence] of limits) {
  test(`rate limit: ${sentence}`, () => {
    assert.equal(
      rateLimitText((name) => headers[name]),
      sentence,
    );
  });
}

const page = new URL('https://registry.example.com/v2/a/b/tags/list?n=2');
const links: readonly (readonly [link: string | undefined, query: string | undefined])[] = [
  [undefined, undefined],
  ['</v2/a/b/tags/list?n=2&last=x>; rel="next"', '?n=2&last=x'],
  ['<https://registry.example.com/v2/a/b/tags/list?last=x>; rel=next', '?last=x'],
  ['<https://evil.example.com/v2/a/b/tags/list?last=x>; rel="next"', undefined],
  ['<http://registry.example.com/v2/a/b/tags/list?last=x>; rel="next"', undefined],
  ['</v2/a/b/blobs/uploads/?last=x>; rel="next"', undefined],
  ['</v2/a/b/tags/list?last=x>; rel="prev"', undefined],
  ['</x>; rel="prev", </v2/a/b/tags/list?last=y>; rel="next"', '?last=y'],
];

for (const [link, query] of links) {
  test(`Link: ${link} leads to ${query}`, () => {
    assert.equal(nextPage(link, page, '/tags/list'), query);
  });
}

test('names that are no tags are left out', () => {
  assert.deepEqual(tagsOf(['latest', '1.0', '\u001b[31m', 'a/b', 7, '.x', 'v'.repeat(129)]), [
    'latest',
    '1.0',
  ]);
  assert.deepEqual(tagsOf(null), []);
});
