import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseJson } from '../../src/oci/json.ts';

const parse = (text: string) => parseJson(Buffer.from(text), 'it');

test('brackets count for the depth, but not those in a string, where a backslash may stand before a quote', () => {
  const brackets = '['.repeat(101);
  assert.throws(
    () => parse(brackets + ']'.repeat(101)),
    /^IntegrityError: it is nested more than 100 levels/,
  );
  assert.equal(parse(`"${brackets}"`), brackets);
  assert.equal(parse(String.raw`"\"${brackets}"`), `"${brackets}`);
  assert.deepEqual(parse(String.raw`["\\", "${brackets}"]`), ['\\', brackets]);
});

test('a document may have 200,000 values', () => {
  assert.equal((parse(`[0${',0'.repeat(199_998)}]`) as unknown[]).length, 199_999);
  assert.throws(
    () => parse(`[0${',0'.repeat(199_999)}]`),
    /^IntegrityError: it has more than 200000 values$/,
  );
});

test('an error quotes nothing of the text', () => {
  for (const text of ['Bearer secret', `{"a":"${'x'.repeat(50)}" secret}`, '{"secret', '"\u0001secret"'])
    assert.throws(
      () => parse(text),
      ({ message }: Error) => /^it is not valid JSON: \w/.test(message) && !message.includes('secret'),
    );
});
