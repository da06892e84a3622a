import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseChallenges } from '../../src/registry/http/answer.ts';
import { HANG } from '../support/hang.ts';

type Plain = readonly [scheme: string, parameters: Readonly<Record<string, string>>];

function plain(...headers: string[]): Plain[] {
  return parseChallenges(headers).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);
}

const table: readonly (readonly [name: string, headers: readonly string[], expected: readonly Plain[]])[] = [
  ['no header', [], []],
  ['an empty header', [''], []],
  ['a scheme alone', ['Negotiate'], [['negotiate', {}]]],
  ['Basic', ['Basic realm="x y"'], [['basic', { realm: 'x y' }]]],
  [
    'Bearer as distribution sends it',
    [
      'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
    ],
    [
      [
        'bearer',
        {
          realm: 'https://auth.docker.io/token',
          service: 'registry.docker.io',
          scope: 'repository:a/b:pull,push',
        },
      ],
    ],
  ],
  ['odd case', ['bEaReR REALM="r",Service=s'], [['bearer', { realm: 'r', service: 's' }]]],
  [
    'blanks around everything',
    ['Bearer  realm = "r" , service = "s" '],
    [['bearer', { realm: 'r', service: 's' }]],
  ],
  [
    'values without quotes',
    ['Bearer realm=https://a/b,service=c'],
    [['bearer', { realm: 'https://a/b', service: 'c' }]],
  ],
  ['backslash escapes', [String.raw`Basic realm="a\"b\\c"`], [['basic', { realm: String.raw`a"b\c` }]]],
  [
    'a comma and a scheme in quotes',
    ['Basic realm="a, Bearer realm=b"'],
    [['basic', { realm: 'a, Bearer realm=b' }]],
  ],
  [
    'several in one header',
    ['Basic realm="a", Bearer realm="b",service="c", Negotiate'],
    [
      ['basic', { realm: 'a' }],
      ['bearer', { realm: 'b', service: 'c' }],
      ['negotiate', {}],
    ],
  ],
  [
    'several headers',
    ['Basic realm="a"', 'Bearer realm="b"'],
    [
      ['basic', { realm: 'a' }],
      ['bearer', { realm: 'b' }],
    ],
  ],
  [
    'an unknown scheme with token68 before one that is known',
    ['Negotiate dG9rZW4==, Basic realm="a"'],
    [
      ['negotiate', {}],
      ['basic', { realm: 'a' }],
    ],
  ],
  [
    'an empty value in the middle',
    ['Bearer realm="r",scope=,service="s"'],
    [['bearer', { realm: 'r', scope: '', service: 's' }]],
  ],
  ['a quote that does not end', ['Bearer realm="r'], [['bearer', { realm: 'r' }]]],
  ['a repeated parameter: the first counts', ['Bearer realm="a",realm="b"'], [['bearer', { realm: 'a' }]]],
  ['commas without end', [',,, Basic realm="a",,,'], [['basic', { realm: 'a' }]]],
  [
    'a name that every object has',
    ['Bearer __proto__="x"'],
    [['bearer', Object.fromEntries([['__proto__', 'x']])]],
  ],
];

for (const [name, headers, expected] of table) {
  test(`challenges: ${name}`, () => {
    assert.deepEqual(plain(...headers), expected);
  });
}

test('any text is read without an error and in the time of its length', () => {
  const pieces = fc.array(
    fc.constantFrom('Bearer ', 'a', '=', '"', '\\', ',', ' ', '\t', 'realm', 'é', '\0'),
    { maxLength: 60 },
  );
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        pieces.map((parts) => parts.join('')),
      ),
      (text) => {
        for (const { scheme, parameters } of parseChallenges([text])) {
          assert.equal(scheme, scheme.toLowerCase());
          for (const name of parameters.keys()) assert.equal(name, name.toLowerCase());
        }
      },
    ),
    { numRuns: 500 },
  );
  const start = performance.now();
  parseChallenges([
    `Bearer ${'a='.repeat(50_000)}`,
    `Bearer realm="${'\\'.repeat(50_000)}`,
    ','.repeat(50_000),
  ]);
  assert.ok(performance.now() - start < HANG);
});

const quote = (value: string) => `"${value.replaceAll(/["\\]/g, String.raw`\$&`)}"`;

test('what is written by the grammar is read back', () => {
  const name = fc.stringMatching(/^[a-z][a-z0-9-]{0,8}$/);
  const challenge = fc.record({
    scheme: name,
    parameters: fc.dictionary(name, fc.string({ maxLength: 20 }), { minKeys: 1, maxKeys: 4 }),
  });
  fc.assert(
    fc.property(fc.array(challenge, { maxLength: 3 }), fc.boolean(), (challenges, together) => {
      const texts = challenges.map(
        ({ scheme, parameters }) =>
          `${scheme} ${Object.entries(parameters)
            .map(([key, value]) => `${key}=${quote(value)}`)
            .join(', ')}`,
      );
      const read = parseChallenges(together ? [texts.join(', ')] : texts);
      assert.deepEqual(
        read.map(({ scheme, parameters }) => ({ scheme, parameters: Object.fromEntries(parameters) })),
        challenges.map(({ scheme, parameters }) => ({ scheme, parameters: { ...parameters } })),
      );
    }),
    { numRuns: 300 },
  );
});
