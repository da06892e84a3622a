import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DlrootfsError, printable } from '../../src/errors.ts';
import {
  imageOfTag,
  parseAncestry,
  parseEndpoints,
  parseImageJson,
  parseLayerSize,
  parsePayloadChecksum,
  parseTags,
  parseTokens,
  tagNames,
} from '../../src/registry/v1-documents.ts';
import { isStandalone } from '../../src/registry/contact.ts';

const hex = 'ab'.repeat(32);
const other = 'cd'.repeat(32);

for (const [header, digest] of [
  [`sha256:${hex}`, hex],
  [`SHA256:${hex.toUpperCase()}`, hex],
  [`["sha256:${hex}"]`, hex],
  [`['sha256:${hex}']`, hex],
  [`[u'tarsum+sha256:${other}', u'sha256:${hex}']`, hex],
  [`["tarsum.v1+sha256:${other}", "sha256:${hex}", "sha256:${hex}"]`, hex],
  [`sha256:${hex}, sha256:${other}`, undefined],
  [`tarsum+sha256:${hex}`, undefined],
  [`tarsum.v1+sha256:${hex}`, undefined],
  [`sha256:${hex}0`, undefined],
  [`sha256:${hex.slice(1)}`, undefined],
  [`sha512:${hex}${hex}`, undefined],
  [`md5:${hex.slice(32)}`, undefined],
  ['[]', undefined],
  ['', undefined],
  [undefined, undefined],
] as const) {
  test(`X-Docker-Checksum-Payload ${JSON.stringify(header?.slice(0, 60))}`, () => {
    assert.equal(parsePayloadChecksum(header), digest && `sha256:${digest}`);
  });
}

for (const [header, body, standalone] of [
  ['True', {}, true],
  ['true', {}, true],
  ['1', {}, true],
  ['0', {}, false],
  ['False', {}, false],
  ['mirror', {}, false],
  [undefined, {}, true],
  ['', {}, true],
  [undefined, undefined, true],
  [undefined, true, true],
  [undefined, { standalone: false }, false],
  ['true', { standalone: false }, true],
] as const) {
  test(`standalone: ${JSON.stringify(header)} with ${JSON.stringify(body)} is ${standalone}`, () => {
    assert.equal(isStandalone(header, body), standalone);
  });
}

for (const [values, token] of [
  [[], undefined],
  [[''], undefined],
  [['signature=1,repository="a/b",access=read'], 'signature=1,repository="a/b",access=read'],
  [['Token signature=1'], 'signature=1'],
  [['a', ' b '], 'a,b'],
  [['a', 'ü'], 'a'],
] as const) {
  test(`X-Docker-Token ${JSON.stringify(values)}`, () => {
    assert.equal(parseTokens(values), token);
  });
}

const secure = new URL('https://index.example.com/v1/');
const plain = new URL('http://127.0.0.1:5000/v1/');

type EndpointCase = readonly [values: readonly string[], index: URL, expected: readonly string[]];

const endpoints: readonly EndpointCase[] = [
  [[], secure, ['https://index.example.com/v1/']],
  [[''], secure, ['https://index.example.com/v1/']],
  [['r1.example.com'], secure, ['https://r1.example.com/v1/']],
  [['r1.example.com:5000'], secure, ['https://r1.example.com:5000/v1/']],
  [['a , b:1', 'c'], secure, ['https://a/v1/', 'https://b:1/v1/', 'https://c/v1/']],
  [['a,a, A ,a:443'], secure, ['https://a/v1/']],
  [['[::1]:5000'], secure, ['https://[::1]:5000/v1/']],
  [['127.0.0.1:5001'], plain, ['http://127.0.0.1:5001/v1/']],
  [['r1.example.com'], plain, ['https://r1.example.com/v1/']],
  [['http://a', 'a/b', 'a?b', 'a#b', 'u:p@a', 'a b', '\\a', ':80', 'a:99999'], secure, []],
  [['http://a', 'b'], secure, ['https://b/v1/']],
];

for (const [values, index, expected] of endpoints) {
  test(`X-Docker-Endpoints ${JSON.stringify(values)} from ${index.host}`, () => {
    const found = parseEndpoints(values, index, (host) => host.startsWith('127.'));
    assert.deepEqual(
      found.map(({ href }) => href),
      expected,
    );
  });
}

test('no more than sixteen registries are asked', () => {
  const hosts = Array.from({ length: 1000 }, (_, n) => `h${n}`).join(',');
  assert.equal(parseEndpoints([hosts], secure, () => false).length, 16);
});

for (const [header, size] of [
  [undefined, undefined],
  ['-1', undefined],
  ['0', 0],
  ['123456789012345', 123_456_789_012_345],
] as const) {
  test(`X-Docker-Size ${header} is ${size}`, () => {
    assert.equal(parseLayerSize(header, 'layer x'), size);
  });
}

for (const header of ['x', '1.5', '-2', '1234567890123456', '1\u001b[2J']) {
  test(`X-Docker-Size ${JSON.stringify(header)} is refused`, () => {
    assert.throws(
      () => parseLayerSize(header, 'layer x'),
      (error) => isClear(error),
    );
  });
}

/** An error of ours, fit for a terminal. */
function isClear(error: unknown): boolean {
  assert.ok(error instanceof DlrootfsError, String(error));
  const text = `${error.message}${error.hint}`;
  assert.equal(printable(text, 2000), text);
  assert.ok(error.message.length < 1000, `${error.message.length} characters`);
  return true;
}

function endsWell(parse: () => unknown): void {
  try {
    parse();
  } catch (error) {
    isClear(error);
  }
}

const ids = fc.uniqueArray(fc.stringMatching(/^[0-9a-f]{64}$/), { minLength: 1, maxLength: 20 });
const json = fc.jsonValue({ maxDepth: 3 });
const bytesOf = (value: unknown) => Buffer.from(JSON.stringify(value));
const junk = fc.oneof(
  fc.uint8Array({ maxLength: 200 }),
  json.map(bytesOf),
  ids.map(bytesOf),
  fc.dictionary(fc.string({ unit: 'binary' }), json).map(bytesOf),
);

test('property: whatever a server sends, it is read or refused in words of ours', () => {
  fc.assert(
    fc.property(junk, fc.string({ unit: 'binary' }), (body, text) => {
      endsWell(() => {
        const tags = parseTags(body, 'the tags');
        tagNames(tags);
        imageOfTag(tags, text, 'team/app');
      });
      for (const tag of [...Object.keys(tagsOf(body)), '__proto__', 'constructor']) {
        endsWell(() => imageOfTag(parseTags(body, 'the tags'), tag, 'team/app'));
      }
      endsWell(() => parseAncestry(body, hex, 'the ancestry'));
      endsWell(() => parseImageJson(body, { id: hex, parent: undefined }, 'the JSON'));
      endsWell(() =>
        parseImageJson(bytesOf({ id: text, parent: text }), { id: hex, parent: hex }, 'the JSON'),
      );
      endsWell(() => parseLayerSize(text, 'layer x'));
    }),
    { numRuns: 500 },
  );
});

function tagsOf(body: Uint8Array): object {
  try {
    return parseTags(body, 'the tags');
  } catch {
    return {};
  }
}

test('property: an ancestry comes out base first, and only when it is sound', () => {
  fc.assert(
    fc.property(ids, fc.nat(), (list, at) => {
      const [top] = list;
      assert.deepEqual(parseAncestry(bytesOf(list), top!, 'the ancestry'), list.toReversed());
      const repeated = list.toSpliced(at % (list.length + 1), 0, list[at % list.length]!);
      assert.throws(() => parseAncestry(bytesOf(repeated), top!, 'the ancestry'), isClear);
    }),
  );
});

test('property: headers of any content give tokens and addresses that can be used', () => {
  const headers = fc.array(fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.webUrl(), fc.domain()));
  fc.assert(
    fc.property(headers, (values) => {
      const token = parseTokens(values);
      if (token !== undefined) assert.match(token, /^[\x20-\x7e]+$/);
      for (const url of parseEndpoints(values, secure, () => true)) {
        assert.match(url.href, /^https:\/\/[^/@?#\s]+\/v1\/$/);
      }
      parsePayloadChecksum(values.join(','));
    }),
    { numRuns: 500 },
  );
});
