import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { pairHistory } from '../../src/oci/image.ts';
import { formatLayerInfo } from '../../src/oci/layer-info.ts';

test('the text has sorted keys, two blanks a level and no newline at the end', () => {
  const info = {
    os: 'linux',
    id: 'x',
    config: { Env: ['A=1', 'B'], Cmd: null, Volumes: {}, Ports: [] },
    Size: 0,
  };
  assert.equal(
    formatLayerInfo(info),
    `{
  "Size": 0,
  "config": {
    "Cmd": null,
    "Env": [
      "A=1",
      "B"
    ],
    "Ports": [],
    "Volumes": {}
  },
  "id": "x",
  "os": "linux"
}`,
  );
  assert.equal(formatLayerInfo({}), '{}');
});

/** Numbers, and their texts by strconv.FormatFloat(x, 'g', -1, 64). */
const numbers: readonly (readonly [number, string])[] = [
  [0, '0'],
  [-0, '-0'],
  [1, '1'],
  [-1, '-1'],
  [10, '10'],
  [999_999, '999999'],
  [1_000_000, '1e+06'],
  [1_000_001, '1.000001e+06'],
  [188_100_000, '1.881e+08'],
  [12_345_678_901, '1.2345678901e+10'],
  [123_456, '123456'],
  [1_234_567, '1.234567e+06'],
  [0.5, '0.5'],
  [123_456.789, '123456.789'],
  [1_234_567.5, '1.2345675e+06'],
  [0.0001, '0.0001'],
  [0.00001, '1e-05'],
  [0.000012, '1.2e-05'],
  [-0.000012, '-1.2e-05'],
  [1e21, '1e+21'],
  [1e100, '1e+100'],
  [5e-324, '5e-324'],
  [1.7976931348623157e308, '1.7976931348623157e+308'],
  [2 ** 53, '9.007199254740992e+15'],
];

for (const [value, text] of numbers) {
  test(`the number ${Object.is(value, -0) ? '-0' : value} is written ${text}`, () => {
    assert.equal(formatLayerInfo({ n: value }), `{\n  "n": ${text}\n}`);
  });
}

const texts: readonly (readonly [string, string, string])[] = [
  ['quotes and backslashes', 'a"b\\c', String.raw`a\"b\\c`],
  ['newline and carriage return', '\n\r', String.raw`\n\r`],
  ['a tab', '\t', String.raw`\u0009`],
  ['backspace and form feed', '\b\f', String.raw`\u0008\u000c`],
  ['NUL and escape', '\u0000\u001b', String.raw`\u0000\u001b`],
  ['delete', '\u007f', '\u007f'],
  ['what HTML minds', '<a & b>', String.raw`\u003ca \u0026 b\u003e`],
  ['line separators', '\u2028\u2029', String.raw`\u2028\u2029`],
  ['other characters', 'é日😀', 'é日😀'],
  ['half a character', '\ud800x', '\ufffdx'],
];

for (const [name, text, written] of texts) {
  test(`${name} in a text`, () => assert.equal(formatLayerInfo({ t: text }), `{\n  "t": "${written}"\n}`));
}

test('keys are sorted by their bytes, not by UTF-16', () => {
  const keys = ['\u{10000}', '\uffee', 'b', 'a', 'B', 'é'];
  const text = formatLayerInfo(Object.fromEntries(keys.map((key) => [key, 1])));
  assert.deepEqual(Object.keys(JSON.parse(text) as object), ['B', 'a', 'b', 'é', '\uffee', '\u{10000}']);
});

/** Returns the value after JSON, which keeps -0; `JSON.stringify` makes it 0, Go does not. */
function throughJson(value: unknown): unknown {
  const minusZero = 'minus zero';
  const text = JSON.stringify(value, (_, part: unknown) => (Object.is(part, -0) ? minusZero : part));
  return JSON.parse(text, (_, part: unknown) => (part === minusZero ? -0 : part));
}

test('any JSON comes back as it was', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string({ unit: 'grapheme' }), fc.jsonValue()), (info) => {
      assert.deepEqual(JSON.parse(formatLayerInfo(info)), throughJson(info));
    }),
    { examples: [[{ '': -0 }]] },
  );
});

const step = (createdBy: string, emptyLayer = false): { createdBy: string; emptyLayer: boolean } => ({
  createdBy,
  emptyLayer,
});

test('history is paired with layers by leaving out the empty steps', () => {
  const history = [step('a'), step('ENV', true), step('b'), step('CMD', true)];
  assert.deepEqual(
    pairHistory(history, 2).map((entry) => entry?.createdBy),
    ['a', 'b'],
  );
});

test('where the numbers differ no layer has a history', () => {
  assert.deepEqual(pairHistory([step('a')], 2), [undefined, undefined]);
  assert.deepEqual(pairHistory([step('a'), step('b')], 1), [undefined]);
  assert.deepEqual(pairHistory([], 1), [undefined]);
  assert.deepEqual(pairHistory([], 0), []);
});
