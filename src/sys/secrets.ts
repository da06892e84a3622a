import { printable } from '../errors.ts';

/** The replacement of a secret. */
const REPLACEMENT = '***';

/** Limit in bytes: a shorter spelling is not masked, since it may occur in any text. */
const LEAST_WORD = 4;
/**
 * Limit in bytes: from this length on a spelling is masked inside words too. Secrets of a server have at
 * least this length.
 */
const LEAST_PART = 8;
/** The number of nested encodings that are undone: `%252f` has two. */
const MAX_ENCODINGS = 3;

/**
 * Collects the secrets of one run, and masks them in texts. A secret is found unchanged, in hexadecimal, and
 * in base64 at any place of a longer text (RFC 4648, both alphabets); also with percent, JSON, HTML or C
 * escapes, in Latin-1, in several lines, in upper or lower case, and cut off before `…`.
 *
 * | length of a spelling | is masked                                      |
 * | -------------------- | ---------------------------------------------- |
 * | 8 bytes or more      | anywhere                                       |
 * | 4 to 7 bytes         | where no letter or digit stands beside it      |
 * | fewer                | not                                            |
 *
 * A text that the caller writes openly, such as the name of the image, is not masked: a mask in it would tell
 * the secret.
 */
export class Secrets {
  // No private names (`#x`): an old Node parses this file before the check of its version.
  /** Byte strings, in lower case. */
  private readonly spellings = new Set<string>();
  private readonly open = new Set<string>();

  /** Adds a text that the caller writes openly. */
  expose(text: string): void {
    const bytes = bytesOf(text);
    this.open.add(bytes);
    for (const spelling of this.spellings) if (bytes.includes(spelling)) this.spellings.delete(spelling);
  }

  /** Adds a secret of the user. */
  add(secret: string): void {
    // Unchanged, as in forms, and as messages print it.
    const plain = [secret, secret.replaceAll(' ', '+'), printable(secret, Infinity)].map(bytesOf);
    // A server may read UTF-8 as Latin-1, or write Latin-1.
    const read = bytesOf(Buffer.from(secret).toString('latin1'));
    const written = lowerCase(Buffer.from(secret, 'latin1').toString('latin1'));
    for (const spelling of [...plain, read, written, ...encodingsOf(Buffer.from(secret))]) {
      const isOpen = [...this.open].some((text) => text.includes(spelling));
      if (!isOpen && spelling.length >= LEAST_WORD) this.spellings.add(spelling);
    }
  }

  /** Adds a user's password: alone, and after the user name as in HTTP Basic. */
  addPassword(username: string, password: string): void {
    if (password === '') return;
    const pair = `${username}:${password}`;
    // The last one is the value of the header, which may be encoded again.
    for (const secret of [password, pair, Buffer.from(pair).toString('base64')]) this.add(secret);
  }

  /**
   * Adds a secret that a server issued, such as a token. A short one is ignored: the server could mask any
   * word with it.
   */
  addIssued(secret: string): void {
    if (secret.length >= LEAST_PART) this.add(secret);
  }

  /** Adds the secrets in an address from a server: the user's part, and the query, which may be signed. */
  addAddress({ username, password, searchParams, search }: URL): void {
    if (password === '') this.addIssued(decoded(username));
    else this.addPassword(decoded(username), decoded(password));
    this.addIssued(search.slice(1));
    for (const [name, value] of searchParams)
      if (/sig|token|key|hmac|secret|cred|policy|auth|pass|jwt/i.test(name)) this.addIssued(value);
  }

  /** Returns the text with `***` in place of each secret. */
  mask(text: string): string {
    if (this.spellings.size === 0 || text.length < LEAST_WORD) return text;
    const ranges = formsOf(formOf(text)).flatMap((form) => find(form, this.spellings));
    return ranges.length === 0 ? text : masked(text, ranges);
  }

  /**
   * Returns a copy of a JSON value with all its texts masked. Names of members are our words, except inside
   * `config`.
   */
  maskIn<T>(value: T): T {
    return (this.spellings.size === 0 ? value : maskIn(this, value, false)) as T;
  }

  /** Masks the texts of an error, of its causes and of errors in it, in place; returns it. */
  maskError(error: unknown): unknown {
    if (this.spellings.size === 0) return error;
    return error instanceof Error ? maskError(this, error, new Set()) : maskIn(this, error, false);
  }
}

/** Returns the ranges of the original text that contain one of the spellings. */
function find(form: Form, spellings: ReadonlySet<string>): readonly Range[] {
  const { text, starts, ends } = form;
  const ranges: Range[] = [];
  const take = (from: number, to: number) => ranges.push({ from: starts[from]!, to: ends[to - 1]! });
  const cuts = [...text.matchAll(CUT)].map(({ index }) => index);
  for (const spelling of spellings) {
    const { length } = spelling;
    for (let at = text.indexOf(spelling); at !== -1; at = text.indexOf(spelling, at + 1))
      if (length >= LEAST_PART || isWord(text, at, at + length)) take(at, at + length);
    for (const cut of cuts) {
      const kept = keptBefore(text, cut, spelling);
      if (kept > 0) take(cut - kept, cut);
    }
  }
  return ranges;
}

function maskIn(secrets: Secrets, value: unknown, isForeign: boolean): unknown {
  if (typeof value === 'string') return secrets.mask(value);
  if (Array.isArray(value)) return value.map((member) => maskIn(secrets, member, isForeign));
  if (typeof value !== 'object' || value === null) return value;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return value;
  const members = Object.entries(value).map(([name, member]) => [
    isForeign ? secrets.mask(name) : name,
    maskIn(secrets, member, isForeign || name === 'config'),
  ]);
  return Object.fromEntries(members) as unknown;
}

/** Members of an error that are never a server's words. */
const OWN_WORDS = new Set(['name', 'code']);

function maskError(secrets: Secrets, error: Error, seen: Set<Error>): Error {
  if (seen.has(error)) return error;
  seen.add(error);
  for (const name of new Set(['message', 'stack', ...Object.getOwnPropertyNames(error)])) {
    if (OWN_WORDS.has(name)) continue;
    const value: unknown = error[name as keyof Error];
    if (value instanceof Error) maskError(secrets, value, seen);
    else if (Array.isArray(value))
      for (const each of value) if (each instanceof Error) maskError(secrets, each, seen);
    const text = typeof value === 'string' ? secrets.mask(value) : value;
    // Uses defineProperty, since a DOMException and the stack have accessors.
    if (text !== value)
      Object.defineProperty(error, name, { value: text, writable: true, configurable: true });
  }
  return error;
}

interface Range {
  readonly from: number;
  readonly to: number;
}

function masked(text: string, ranges: readonly Range[]): string {
  let result = '';
  let end = 0;
  for (const { from, to } of ranges.toSorted((one, other) => one.from - other.from)) {
    if (from > end || result === '') result += text.slice(end, from) + REPLACEMENT;
    end = Math.max(end, to);
  }
  return result + text.slice(end);
}

/**
 * A text with escapes undone: bytes in lower case, one character per byte, with the position of each in the
 * original.
 */
interface Form {
  readonly text: string;
  readonly starts: readonly number[];
  readonly ends: readonly number[];
}

function bytesOf(text: string): string {
  return formOf(text).text;
}

function formOf(original: string): Form {
  let text = '';
  const starts: number[] = [];
  const ends: number[] = [];
  let at = 0;
  for (const character of original) {
    const bytes = utf8(character.codePointAt(0)!);
    text += bytes;
    for (let count = 0; count < bytes.length; count += 1) {
      starts.push(at);
      ends.push(at + character.length);
    }
    at += character.length;
  }
  return { text: lowerCase(text), starts, ends };
}

/** Returns the UTF-8 bytes of a character; for a lone surrogate its byte (see sys/os-path.ts). */
function utf8(point: number): string {
  if (point < 0x80) return String.fromCharCode(point);
  if (point >= 0xdc80 && point <= 0xdcff) return String.fromCharCode(point - 0xdc00);
  return point > 0x10_ffff ? '' : Buffer.from(String.fromCodePoint(point)).toString('latin1');
}

/** Changes ASCII only, so that the length stays. */
function lowerCase(bytes: string): string {
  return bytes.replaceAll(/[A-Z]+/g, (letters) => letters.toLowerCase());
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

const ELLIPSIS = '\xe2\x80\xa6';
/** Marks of a text that was cut. */
const CUT = /\xe2\x80\xa6|\.\.\./g;

/** The escapes of each notation; the last pattern is the start of an escape whose rest was cut off. */
const NOTATIONS = [
  ['%(?<byte>[0-9a-f]{2})', `%[0-9a-f]?(?=${ELLIPSIS})`],
  [
    String.raw`(?<units>(?:\\u[0-9a-f]{4})+)`,
    String.raw`\\u\{(?<point>[0-9a-f]{1,6})\}`,
    String.raw`\\x(?<byte>[0-9a-f]{2})`,
    String.raw`\\(?<octal>[0-3][0-7]{2})`,
    String.raw`\\(?<character>[^ux])`,
    String.raw`\\(?:x[0-9a-f]?|u\{?[0-9a-f]*)?(?=${ELLIPSIS})`,
  ],
  [
    '&#x(?<point>[0-9a-f]{1,6});',
    '&#(?<decimal>[0-9]{1,7});',
    '&(?<entity>amp|lt|gt|quot|apos);',
    `&[#a-z0-9]{0,8}(?=${ELLIPSIS})`,
  ],
  // Long words may be in several lines.
  [String.raw`[\r\n]+[ \t]*`],
].map((patterns) => new RegExp(patterns.join('|'), 'g'));

const ENTITIES = new Map([
  ['amp', '&'],
  ['lt', '<'],
  ['gt', '>'],
  ['quot', '"'],
  ['apos', "'"],
]);
const CONTROLS = new Map([
  ['b', '\b'],
  ['f', '\f'],
  ['n', '\n'],
  ['r', '\r'],
  ['t', '\t'],
]);

/** Returns the bytes of an escape. */
function unescapedText(groups: Readonly<Record<string, string | undefined>>): string {
  const { byte, octal, units, point, decimal, entity, character } = groups;
  if (byte !== undefined) return String.fromCharCode(Number.parseInt(byte, 16));
  if (octal !== undefined) return String.fromCharCode(Number.parseInt(octal, 8));
  if (units !== undefined) return bytesOf(JSON.parse(`"${units}"`) as string);
  if (point !== undefined) return utf8(Number.parseInt(point, 16));
  if (decimal !== undefined) return utf8(Number(decimal));
  // At most one of these is defined; none for an escape that was cut, and for the end of a line.
  return [ENTITIES.get(entity!), CONTROLS.get(character!), character, ''].find((each) => each !== undefined)!;
}

/** Returns a form, those with the escapes of one notation undone, and so on, `most` times. */
function formsOf(form: Form, most = MAX_ENCODINGS): readonly Form[] {
  if (most === 0) return [form];
  const simpler = NOTATIONS.flatMap((escapes) => unescaped(form, escapes) || []);
  return [form, ...simpler.flatMap((each) => formsOf(each, most - 1))];
}

/** Undoes the escapes of a text; undefined if it has none. */
function unescaped({ text, starts, ends }: Form, escapes: RegExp): Form | undefined {
  const form = { text: '', starts: [] as number[], ends: [] as number[] };
  let end = 0;
  const keep = (to: number): void => {
    form.text += text.slice(end, to);
    for (; end < to; end += 1) {
      form.starts.push(starts[end]!);
      form.ends.push(ends[end]!);
    }
  };
  for (const { index, 0: escape, groups = {} } of text.matchAll(escapes)) {
    keep(index);
    end = index + escape.length;
    const meaning = unescapedText(groups);
    form.text += meaning;
    for (let count = 0; count < meaning.length; count += 1) {
      form.starts.push(starts[index]!);
      form.ends.push(ends[end - 1]!);
    }
  }
  if (end === 0) return undefined;
  keep(text.length);
  return { ...form, text: lowerCase(form.text) };
}

function isWord(text: string, from: number, to: number): boolean {
  return !/[a-z0-9]/.test(text.charAt(from - 1)) && !/[a-z0-9]/.test(text.charAt(to));
}

/**
 * Returns the length of the longest prefix of `spelling` that ends at `cut`; 0 for one that is too short to
 * matter.
 */
function keptBefore(text: string, cut: number, spelling: string): number {
  for (let length = Math.min(spelling.length - 1, cut); length >= LEAST_WORD; length -= 1) {
    const from = cut - length;
    if (!text.startsWith(spelling.slice(0, length), from)) continue;
    if (length >= LEAST_PART || !/[a-z0-9]/.test(text.charAt(from - 1))) return length;
  }
  return 0;
}

/**
 * Returns the secret in hexadecimal, and in base64 after 0, 1 or 2 bytes (modulo 3), each at the end or
 * within a text.
 */
function encodingsOf(secret: Buffer): readonly string[] {
  const texts = [0, 1, 2].flatMap((before) => {
    const text = Buffer.concat([Buffer.alloc(before), secret])
      .toString('base64')
      .replaceAll('=', '');
    const first = Math.ceil((before * 8) / 6);
    const whole = Math.floor(((before + secret.length) * 8) / 6);
    return [text.slice(first), text.slice(first, whole)];
  });
  const urls = texts.map((text) => text.replaceAll('+', '-').replaceAll('/', '_'));
  return [secret.toString('hex'), ...texts, ...urls].map(lowerCase);
}
