import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { printable } from '../../src/errors.ts';
import { Secrets } from '../../src/sys/secrets.ts';
import { encodings, secretsIn } from '../support/secret-spellings.ts';

function masking(...secrets: readonly string[]): Secrets {
  const known = new Secrets();
  for (const secret of secrets) known.add(secret);
  return known;
}

const LONG = 'Cödé word/+"7';

const rows: readonly (readonly [what: string, secret: string, text: string, expected: string])[] = [
  ['a word of eight or more characters inside of another', 'verysecret', 'xVERYSECRETx', 'x***x'],
  ['a word of four to seven characters', 'abcd', 'abcd ABCD/abcd=', '*** ***/***='],
  ['but not inside of another', 'abcd', 'xabcd abcd1', 'xabcd abcd1'],
  ['three characters', 'abc', 'abc', 'abc'],
  ['two secrets side by side', 'verysecret', 'verysecretverysecret!', '***!'],
  ['one that was cut', 'verysecret', 'it was verysec… (400)', 'it was ***… (400)'],
  ['one that was cut, by dots', 'verysecret', 'it was verysec...', 'it was ***...'],
  ['one that was cut in an escape', 'very"secret', String.raw`very\u00…`, String.raw`***\u00…`],
  ['a few characters before a cut, inside of a word', 'verysecret', 'it was xverys…', 'it was xverys…'],
  ['less than a word before a cut', 'verysecret', 'it was ver…', 'it was ver…'],
  ['a blank as a plus sign', 'very secret', 'very+secret', '***'],
  ['percent encoding twice', 'very/secret', 'very%252Fsecret', '***'],
  ['a C escape, as we print it', 'very\u0007secret', String.raw`very\x07secret`, '***'],
  ['our escape of a character', 'very\u200bsecret', String.raw`very\u{200b}secret`, '***'],
  ['HTML', 'very<&>secret', 'very&lt;&#38;&#x3E;secret', '***'],
  ['JSON', 'very"\\\n\u{1f600}secret', String.raw`very\"\\\n\uD83D\uDE00secret`, '***'],
  ['a secret that looks like an escape', 'very%41secret', 'very%41secret', '***'],
  ['base64 in lines, as base64(1) prints it', 'verysecret', 'see dmVyeXN\r\n  lY3JldA==', 'see ***=='],
  ['the same after our escapes', 'verysecret', String.raw`dmVyeXN\x0alY3JldA`, '***'],
  ['C escapes in octal', 'very"sécret', String.raw`\166ery\042s\303\251cret`, '***'],
  ['UTF-8 read as Latin-1', 'very-sécret', 'very-sÃ©cret', '***'],
  ['percent encoding of Latin-1', 'very-sécret', 'very-s%E9cret', '***'],
  ['base64 in the middle of a text', 'verysecret', btoa('{"a":"verysecret"}'), 'eyJhIjoi***CJ9'],
];

for (const [what, secret, text, expected] of rows)
  test(`masked: ${what}`, () => assert.equal(masking(secret).mask(text), expected));

test('every encoding of a password is masked, with its user name too', () => {
  for (const word of [LONG, 'w0rd']) {
    const secrets = new Secrets();
    secrets.addPassword('bob', word);
    for (const [name, encode] of Object.entries(encodings))
      for (const text of [word, `bob:${word}`])
        if (text.length >= 8 || name !== 'base64 with more around')
          assert.deepEqual(secretsIn(secrets.mask(`<${encode(text)}>`), [word]), [], `${name} of ${text}`);
  }
});

/** The special characters of a notation, which a secret in it may have, and its encoding of a character. */
const notations: readonly (readonly [special: string, encode: (character: string) => string])[] = [
  ['%', encodeURIComponent],
  ['&', (character) => `&#${character.codePointAt(0)};`],
  ['\\"', (character) => JSON.stringify(character).slice(1, -1)],
  ['\\', (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`],
];

test('any secret in any text, with some characters escaped, cut anywhere', () => {
  const letter = fc.constantFrom(...Array.from('abcXYZ019+/=%&\\"<>. :üé☺\u0001'));
  const secret = fc.string({ unit: letter, minLength: 8, maxLength: 40 });
  const escaped = fc.array(fc.boolean(), { minLength: 1, maxLength: 8 });
  const notation = fc.constantFrom(...Array.from(notations));
  fc.assert(
    fc.property(
      secret,
      notation,
      escaped,
      fc.string(),
      fc.nat({ max: 60 }),
      (word, [special, encode], chosen, after, cut) => {
        const characters = Array.from(word).map((character, at) =>
          special.includes(character) || chosen[at % chosen.length]! ? encode(character) : character,
        );
        const text = characters.join('');
        const secrets = masking(word);
        assert.equal(secrets.mask(`<${text}> `), '<***> ');
        if (cut >= 8 && cut < word.length)
          assert.match(secrets.mask(printable(word + after, cut)), /^\*\*\*/);
      },
    ),
  );
});

test('texts without a secret stay as they are', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) =>
      assert.equal(masking('verysecret').mask(text), text),
    ),
  );
});

test('what the caller writes openly is not masked as it is, but in other encodings', () => {
  const secrets = new Secrets();
  secrets.addPassword('bob', 'alpine');
  secrets.expose('alpine:3.20');
  assert.equal(secrets.mask(`library/alpine ${btoa('bob:alpine')} bob:alpine`), 'library/alpine *** ***');
});

test('a server masks no word of ours by a token of few characters', () => {
  const secrets = new Secrets();
  secrets.addIssued('latest');
  secrets.addIssued('longtoken');
  assert.equal(secrets.mask('latest longtoken'), 'latest ***');
});

test('of an address the password and what is signed', () => {
  const secrets = new Secrets();
  secrets.addAddress(new URL('https://me:p%40ssw0rd@host/path?name=library%2Fx&X-Amz-Signature=0123456789'));
  assert.equal(secrets.mask('p@ssw0rd bWU6cEBzc3cwcmQ= 0123456789 library/x'), '*** *** *** library/x');
});

test('a user of an address without a password may be a token', () => {
  const secrets = new Secrets();
  secrets.addAddress(new URL('https://gh%2Ftoken12@host/path'));
  assert.equal(secrets.mask('ftp://gh%2Ftoken12@host gh/token12'), 'ftp://***@host ***');
});

test('an error is masked with its stack, its causes, the errors in it and its own texts', () => {
  const cause = Object.assign(new TypeError('verysecret inside'), { input: 'a verysecret' });
  const error = new AggregateError([new Error('one verysecret'), cause], 'all verysecret', { cause });
  cause.cause = error;
  const masked = masking('verysecret').maskError(error);
  assert.equal(masked, error);
  assert.equal(error.message, 'all ***');
  assert.match(error.stack!, /^AggregateError: all \*\*\*\n/);
  assert.equal((error.errors as Error[])[0]!.message, 'one ***');
  assert.deepEqual([cause.message, cause.input], ['*** inside', 'a ***']);
  assert.doesNotMatch(cause.stack!, /verysecret/);
});

test('the reason of an abort, an error of the DOM, is masked too', () => {
  const error = new DOMException('no verysecret');
  masking('verysecret').maskError(error);
  assert.equal(error.message, 'no ***');
});

test('a value is masked in its texts; names of members only inside a configuration', () => {
  const value = { verysecret: ['a verysecret', 1, null], config: { Labels: { verysecret: true } } };
  assert.deepEqual(masking('verysecret').maskIn(value), {
    verysecret: ['a ***', 1, null],
    config: { Labels: { '***': true } },
  });
});
