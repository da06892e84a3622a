import { printable } from '../errors.ts';
import { accessListBytes, textKeys } from './access-list.ts';
import { type BytePath, indexOfByte, MalformedTarError, noBytes, sliceBytes } from './entry.ts';
import { parseDecimal, parseTime, type Time } from './header.ts';

/**
 * The value of a record; `null` removes the value of a global header; undefined: the header has no record.
 */
type Record<T> = T | null | undefined;

/** The records of a pax header that a root file system can hold. */
export class PaxRecords {
  path: Record<BytePath>;
  linkPath: Record<BytePath>;
  size: Record<number>;
  uid: Record<number>;
  gid: Record<number>;
  mtime: Record<Time>;
  deviceMajor: Record<number>;
  deviceMinor: Record<number>;
  /** Values by name, a byte string; `null` removes a global one. */
  xattrs: Map<string, Uint8Array | null> | undefined;
  sparse: PaxSparse | undefined;
}

/** The GNU.sparse records of the formats 0.0, 0.1 and 1.0. */
export interface PaxSparse {
  /** `0` or `1`, with `minor` `0` or `1`; undefined: the formats 0.x may leave them out. */
  major: string | undefined;
  minor: string | undefined;
  name: BytePath | undefined;
  size: number | undefined;
  /** Number of extents (formats 0.x). */
  blocks: number | undefined;
  /** Offset, length, offset, … (formats 0.x). */
  map: number[];
}

/**
 * Most attributes of a file: Linux lists 64 KiB of names (XATTR_LIST_MAX), each at least `user.x` and a NUL.
 */
const MAX_XATTRS = 9362;

/** XATTR_NAME_MAX of Linux, with three characters each when percent-encoded: longer names are not decoded. */
const MAX_ENCODED_NAME = 3 * 255;

const newline = 0x0a;
const SPACE = 0x20;
const equals = 0x3d;

const schilyXattr = 'SCHILY.xattr.';
const libarchiveXattr = 'LIBARCHIVE.xattr.';
/** Paths of pax headers by GNU tar and bsdtar; Go puts all of its own into `PaxHeaders.0`. */
const escapingHeaderPath = /(?:^|\/)PaxHeader(?:s(?:\.[1-9]\d*)?)?\//;

/**
 * Parses the body of a pax header: records `%d %s=%s\n`, the number being the length of the record. Values
 * are bytes. The last record of a key applies. An empty value removes an earlier one (POSIX pax, "pax
 * Extended Header"). Only an extended attribute that was not set before is set to an empty value, as GNU tar
 * does.
 *
 * @param headerPath the path of the pax header itself. GNU tar and bsdtar write `%` and `=` in names of
 * SCHILY.xattr as `%25` and `%3D`; Go writes `%` unchanged. The paths of their headers differ.
 * @throws MalformedTarError for a broken record, a name with NUL, and a value that is not a number or time
 */
export function parsePax(body: Buffer, headerPath: BytePath = noBytes): PaxRecords {
  const records = new PaxRecords();
  for (let start = 0; start < body.length;) start = parseRecord(body, start, records, headerPath);
  return records;
}

/** Puts the record at `start` into `records` and returns the start of the next one. */
function parseRecord(body: Buffer, start: number, records: PaxRecords, headerPath: BytePath): number {
  // Twenty digits are more than any length within the limit on meta headers.
  const blank = indexOfByte(body, SPACE, start, Math.min(start + 21, body.length));
  const length = blank === -1 ? Number.NaN : parseDecimal(body, start, blank);
  const next = start + length;
  if (!(next > blank + 1 && next <= body.length) || body[next - 1] !== newline) {
    throw new MalformedTarError(`its pax header has a broken record at byte ${start}`);
  }
  const sign = indexOfByte(body, equals, blank + 1, next);
  if (sign === -1 || sign === blank + 1) {
    throw new MalformedTarError(`its pax header has a record without a key at byte ${start}`);
  }
  let key: string = sliceBytes(body, blank + 1, sign);
  const mayBeEncoded = key.startsWith(schilyXattr) && key.length <= schilyXattr.length + MAX_ENCODED_NAME;
  if (mayBeEncoded && key.includes('%') && escapingHeaderPath.test(headerPath)) key = percentDecoded(key);
  if (key.includes('\0')) throw new MalformedTarError('its pax header has a key with a NUL byte');
  setRecord(records, key, body, sign + 1, next - 1);
  return next;
}

/** Parses the value of a record: the bytes from `start` to `end`. */
type ParseValue<T> = (key: string, body: Buffer, start: number, end: number) => T;

/** The field for a record, and the parser of its value. */
type Field<Fields> = {
  [Name in keyof Fields]-?: readonly [name: Name, parse: ParseValue<NonNullable<Fields[Name]>>];
}[keyof Fields];

/** Fields that an empty value clears. */
const FIELDS: ReadonlyMap<string, Field<PaxRecords>> = new Map<string, Field<PaxRecords>>([
  ['path', ['path', nameValue]],
  ['linkpath', ['linkPath', nameValue]],
  ['size', ['size', numberValue]],
  ['uid', ['uid', numberValue]],
  ['gid', ['gid', numberValue]],
  ['mtime', ['mtime', timeValue]],
  ['SCHILY.devmajor', ['deviceMajor', numberValue]],
  ['SCHILY.devminor', ['deviceMinor', numberValue]],
]);

const SPARSE_FIELDS: ReadonlyMap<string, Field<PaxSparse>> = new Map<string, Field<PaxSparse>>([
  ['GNU.sparse.major', ['major', textValue]],
  ['GNU.sparse.minor', ['minor', textValue]],
  ['GNU.sparse.name', ['name', nameValue]],
  ['GNU.sparse.size', ['size', numberValue]],
  ['GNU.sparse.realsize', ['size', numberValue]],
  ['GNU.sparse.numblocks', ['blocks', numberValue]],
  ['GNU.sparse.map', ['map', listValue]],
]);

function setRecord(records: PaxRecords, key: string, body: Buffer, start: number, end: number): void {
  const field = FIELDS.get(key);
  if (field) {
    (records[field[0]] as unknown) = start === end ? null : field[1](key, body, start, end);
    return;
  }
  const value = body.subarray(start, end);
  if (textKeys.has(key)) {
    setAccessList(records, key, value);
  } else if (key === 'RHT.security.selinux') {
    setXattr(records, 'security.selinux', withNul(value));
  } else if (key.startsWith(schilyXattr)) {
    setXattr(records, key.slice(schilyXattr.length), value);
  } else if (key.startsWith(libarchiveXattr)) {
    const name = key.slice(libarchiveXattr.length);
    const decoded = name.length <= MAX_ENCODED_NAME ? percentDecoded(name) : name;
    setXattr(records, decoded, base64Value(key, body, start, end));
  } else if (key.startsWith('GNU.sparse.') && value.length > 0) {
    setSparse((records.sparse ??= emptySparse()), key, body, start, end);
  }
}

function setSparse(sparse: PaxSparse, key: string, body: Buffer, start: number, end: number): void {
  const field = SPARSE_FIELDS.get(key);
  if (field) (sparse[field[0]] as unknown) = field[1](key, body, start, end);
  else if (key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes') {
    // Format 0.0 has offsets and lengths in turn, one per record.
    if ((sparse.map.length % 2 === 0) !== (key === 'GNU.sparse.offset'))
      throw new MalformedTarError('its pax header has sparse offsets and lengths out of turn');
    sparse.map.push(numberValue(key, body, start, end));
  } else {
    throw new MalformedTarError(`its pax header has a sparse record of an unknown kind: ${printable(key)}`);
  }
}

/**
 * Sets an attribute of the entry. The result depends on its value earlier in the header:
 *
 * | value | before          | now                                                                         |
 * | ----- | --------------- | --------------------------------------------------------------------------- |
 * | bytes | anything        | the bytes                                                                   |
 * | empty | nothing, empty  | empty: bsdtar writes each attribute twice, in its own record and in star's  |
 * | empty | bytes, null     | null                                                                        |
 */
function setXattr(records: PaxRecords, name: string, value: Uint8Array): void {
  if (name === '') throw new MalformedTarError('its pax header has an extended attribute without a name');
  const xattrs = (records.xattrs ??= new Map());
  const before = xattrs.get(name);
  const isSet = value.length > 0 || before === undefined || before?.length === 0;
  // The body of a meta header may be the source's memory or be far larger than the value, so this is a copy.
  xattrs.set(name, isSet ? new Uint8Array(value) : null);
  if (xattrs.size > MAX_XATTRS) throw tooManyXattrs('pax header', MAX_XATTRS);
}

/** Adds the NUL that a context has on disk: `tar --selinux` leaves it out when writing, and sets it again. */
function withNul(context: Buffer): Buffer {
  return context.length === 0 ? context : Buffer.concat([context, Buffer.alloc(1)]);
}

/**
 * Sets an access list as the kernel's attribute. With names without numbers, which no file system can hold,
 * it is set under the record's key.
 *
 * | text    | attribute before | attribute now | under the key now |
 * | ------- | ---------------- | ------------- | ----------------- |
 * | numbers | anything         | the bytes     | nothing           |
 * | names   | bytes            | the same      | the same          |
 * | names   | nothing, null    | nothing       | the text          |
 * | empty   | anything         | null          | null              |
 */
function setAccessList(records: PaxRecords, key: string, text: Buffer): void {
  const name = textKeys.get(key)!;
  const xattrs = (records.xattrs ??= new Map());
  const value = text.length === 0 ? null : (accessListBytes(text.toString('latin1')) ?? 'names');
  if (value === 'names' && xattrs.get(name)) return;
  for (const other of [name, key]) xattrs.delete(other);
  if (value === 'names') xattrs.set(key, new Uint8Array(text));
  else if (value === null) xattrs.set(key, null).set(name, null);
  else xattrs.set(name, value);
}

function emptySparse(): PaxSparse {
  return { major: undefined, minor: undefined, name: undefined, size: undefined, blocks: undefined, map: [] };
}

/**
 * Most attributes that global headers may set, and the limit on bytes of their names and values. Every later
 * entry gets all of them. No known tool writes any. Without limits a small archive could cause any amount of
 * work.
 */
const MAX_GLOBAL_XATTRS = 16;
const MAX_GLOBAL_XATTR_BYTES = 4096;

/**
 * Returns the records of global headers (type `g`) that apply after one more.
 *
 * @throws MalformedTarError if it gives all entries one path, link target, size or sparse map. No writer does
 * that, and readers differ. Such an archive can show one content to a scanner and another to its user.
 * @throws MalformedTarError for more attributes than the limits above
 */
export function addGlobals(globals: PaxRecords | undefined, added: PaxRecords): PaxRecords {
  if ((added.path ?? added.linkPath ?? added.size ?? added.sparse) !== undefined) {
    throw new MalformedTarError(
      'its global pax header sets a path, link target, size or sparse map for all entries',
    );
  }
  const combined = combinePax(globals ?? new PaxRecords(), added);
  const { xattrs } = combined;
  if (xattrs === undefined) return combined;
  const inForce = xattrsOf(xattrs) ?? new Map<string, Uint8Array>();
  if (inForce.size > MAX_GLOBAL_XATTRS) throw tooManyXattrs('global pax headers', MAX_GLOBAL_XATTRS);
  let bytes = 0;
  for (const [name, value] of inForce) bytes += name.length + value.length;
  if (bytes > MAX_GLOBAL_XATTR_BYTES) {
    throw new MalformedTarError(
      `its global pax headers set extended attributes of ${bytes} bytes, the limit is ${MAX_GLOBAL_XATTR_BYTES}`,
    );
  }
  return Object.assign(combined, { xattrs: inForce });
}

/** Returns the records that apply if `own` come after others: an empty value removes an earlier one. */
export function combinePax(globals: PaxRecords, own: PaxRecords | undefined): PaxRecords {
  if (own === undefined) return globals;
  const set = Object.entries(own).filter(([, value]) => value !== undefined);
  const combined = Object.assign(new PaxRecords(), globals, Object.fromEntries(set));
  if (!globals.xattrs || !own.xattrs) return combined;
  combined.xattrs = new Map(globals.xattrs);
  for (const [name, value] of own.xattrs) {
    const isRemoved = value?.length === 0 && globals.xattrs.get(name)?.length;
    combined.xattrs.set(name, isRemoved ? null : value);
  }
  return combined;
}

/** Returns the attributes that records give to an entry; undefined for none. */
export function xattrsOf(records: NonNullable<PaxRecords['xattrs']>): Map<string, Uint8Array> | undefined {
  const xattrs = new Map<string, Uint8Array>();
  for (const [name, value] of records) {
    if (name.includes('\0'))
      throw new MalformedTarError(`its extended attribute ${printable(name)} has a NUL byte`);
    if (value !== null) xattrs.set(name, value);
  }
  // If an access list has both forms, the numbers apply.
  for (const [key, name] of textKeys) if (xattrs.has(name)) xattrs.delete(key);
  return xattrs.size === 0 ? undefined : xattrs;
}

function tooManyXattrs(where: string, limit: number): MalformedTarError {
  return new MalformedTarError(`its ${where} set more than ${limit} extended attributes`);
}

const NUL = 0x00;
const comma = 0x2c;

/** Parses a path. */
function nameValue(key: string, body: Buffer, start: number, end: number): BytePath {
  if (indexOfByte(body, NUL, start, end) !== -1) throw new MalformedTarError(`its pax ${key} has a NUL byte`);
  return sliceBytes(body, start, end);
}

function textValue(_key: string, body: Buffer, start: number, end: number): string {
  return sliceBytes(body, start, end);
}

function numberValue(key: string, body: Buffer, start: number, end: number): number {
  const value = parseDecimal(body, start, end);
  if (Number.isNaN(value)) throw badValue(key, body, start, end, 'not a number, or is too large');
  return value;
}

function timeValue(key: string, body: Buffer, start: number, end: number): Time {
  const time = parseTime(body, start, end);
  if (time === undefined) throw badValue(key, body, start, end, 'not a time');
  return time;
}

/** Parses numbers between commas. */
function listValue(key: string, body: Buffer, start: number, end: number): number[] {
  const list: number[] = [];
  for (let from = start; from <= end;) {
    const found = indexOfByte(body, comma, from, end);
    const to = found === -1 ? end : found;
    list.push(numberValue(key, body, from, to));
    from = to + 1;
  }
  return list;
}

/** Decodes base64 as libarchive writes it, without padding. */
function base64Value(key: string, body: Buffer, start: number, end: number): Uint8Array {
  const text = sliceBytes(body, start, end);
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text)) throw badValue(key, body, start, end, 'not base64');
  return Buffer.from(text, 'base64');
}

function percentDecoded(text: string): string {
  return text.replaceAll(/%([0-9A-Fa-f]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

function badValue(key: string, body: Buffer, start: number, end: number, what: string): MalformedTarError {
  return new MalformedTarError(
    `its pax ${printable(key)} "${printable(sliceBytes(body, start, end), 60)}" is ${what}`,
  );
}
