import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseDecimal, parseNumber, parseTime } from '../../src/tar/header.ts';
import { encodeNumber } from '../support/archive.ts';

describe('parseNumber', () => {
  const table: [title: string, field: Buffer, value: number][] = [
    ['octal with a NUL', Buffer.from('0000644\0'), 0o644],
    ['octal with a space', Buffer.from('0000644 '), 0o644],
    ['octal with space and NUL, as v7 has it', Buffer.from('   644 \0'), 0o644],
    ['octal that fills the field', Buffer.from('77777777'), 0o77777777],
    ['twelve octal digits', Buffer.from('777777777777'), 0o777777777777],
    ['leading NULs', Buffer.from('\0\0\x00644\0'), 0o644],
    ['leading spaces and NULs', Buffer.from(' \0 644 \0'), 0o644],
    ['a field of NULs', Buffer.alloc(8), 0],
    ['a field of spaces', Buffer.from('        '), 0],
    ['a blank between digits', Buffer.from('0000 644'), Number.NaN],
    ['a blank, a NUL, then more', Buffer.from('644 \x00 64'), Number.NaN],
    ['what follows a NUL is not looked at', Buffer.from('644\0zzzz'), 0o644],
    ['no octal digit', Buffer.from('0000648\0'), Number.NaN],
    ['a minus', Buffer.from('-000644\0'), Number.NaN],
    ['text', Buffer.from('root\0\0\0\0'), Number.NaN],
    ['hexadecimal', Buffer.from('0x1ff\0\0\0'), Number.NaN],
    ['base 256', Buffer.from([0x80, 0, 0, 0, 0, 0, 0, 5]), 5],
    ['base 256, 2^32 - 1', Buffer.from([0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), 0xffff_ffff],
    ['base 256, -1', Buffer.alloc(8, 0xff), -1],
    ['base 256, -2', Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]), -2],
    ['base 256, bits in the first byte', Buffer.from([0x81, 0, 0, 0]), 2 ** 24],
    ['base 256, 2^53 - 1', Buffer.from([0x80, 0, 0, 0, 0, 0x1f, 255, 255, 255, 255, 255, 255]), 2 ** 53 - 1],
    ['base 256, 2^53', Buffer.from([0x80, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0]), Number.NaN],
    ['base 256, the largest', Buffer.from([0xbf, ...Array.from({ length: 11 }, () => 0xff)]), Number.NaN],
    ['base 256, the smallest', Buffer.from([0xc0, ...Array.from({ length: 11 }, () => 0)]), Number.NaN],
  ];
  for (const [title, field, value] of table) {
    it(`reads ${title}`, () => {
      assert.equal(parseNumber(field, 0, field.length), value);
      const within = Buffer.concat([Buffer.from('77'), field, Buffer.from('77')]);
      assert.equal(parseNumber(within, 2, field.length), value, 'neighbours do not count');
    });
  }

  it('reads what encodeNumber writes', () => {
    for (const value of [
      0,
      1,
      0o7777777,
      0o10000000,
      2 ** 32 - 1,
      2 ** 33,
      2 ** 53 - 1,
      -1,
      -2,
      -(2 ** 31),
      -(2 ** 53) + 1,
    ]) {
      assert.equal(parseNumber(encodeNumber(value, 12), 0, 12), value);
    }
  });
});

describe('parseDecimal', () => {
  const table: [text: string, value: number][] = [
    ['0', 0],
    ['12', 12],
    ['0012', 12],
    ['+12', 12],
    ['-12', -12],
    ['-0', 0],
    ['9007199254740991', Number.MAX_SAFE_INTEGER],
    ['9007199254740992', Number.NaN],
    ['999999999999999999999999999999999999', Number.NaN],
    ['', Number.NaN],
    ['-', Number.NaN],
    ['+', Number.NaN],
    ['+-1', Number.NaN],
    ['1 ', Number.NaN],
    [' 1', Number.NaN],
    ['1.5', Number.NaN],
    ['0x10', Number.NaN],
    ['1e3', Number.NaN],
    ['1\0', Number.NaN],
  ];
  for (const [text, value] of table) {
    it(`reads ${JSON.stringify(text)} as ${value}`, () => {
      assert.equal(parseDecimal(Buffer.from(`9${text}9`), 1, 1 + text.length), value);
    });
  }
});

describe('parseTime', () => {
  const table: [text: string, seconds: number, nanoseconds: number][] = [
    ['0', 0, 0],
    ['1700000000', 1_700_000_000, 0],
    ['1.5', 1, 500_000_000],
    ['1.', 1, 0],
    ['1.000000001', 1, 1],
    ['1.0000000019', 1, 1],
    ['1.123456789123456789', 1, 123_456_789],
    ['-1', -1, 0],
    ['-1.25', -2, 750_000_000],
    ['-0.5', -1, 500_000_000],
    ['-1.0', -1, 0],
    ['-0.000000001', -1, 999_999_999],
    ['-1.0000000009', -1, 0],
    ['+3.5', 3, 500_000_000],
  ];
  for (const [text, seconds, nanoseconds] of table) {
    it(`reads ${text}`, () => {
      assert.deepEqual(parseTime(Buffer.from(`9${text}9`), 1, 1 + text.length), { seconds, nanoseconds });
    });
  }
  for (const text of [
    '',
    '.5',
    '.',
    '-',
    '1.2.3',
    '1.-5',
    '1,5',
    'now',
    '1e9',
    '99999999999999999999',
    '1.5 ',
  ]) {
    it(`refuses ${JSON.stringify(text)}`, () => {
      assert.equal(parseTime(Buffer.from(text), 0, text.length), undefined);
    });
  }
});
