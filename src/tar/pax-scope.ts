import { printable } from '../errors.ts';
import { textKeys } from './access-list.ts';
import { MalformedTarError } from './malformed.ts';
import type { PaxRecords } from './pax.ts';

/**
 * How many attributes global headers may set, and how many bytes names and values may have: every entry after them gets all. No known tool writes any,
 * and without a bound a small archive asks for any amount of work.
 */
const MAX_GLOBAL_XATTRS = 16;
const MAX_GLOBAL_XATTR_BYTES = 4096;

type Xattrs = Map<string, Uint8Array>;

/** The records that global headers (type `g`) have left in force. */
export class PaxGlobals {
  uid: PaxRecords['uid'];
  gid: PaxRecords['gid'];
  mtime: PaxRecords['mtime'];
  deviceMajor: PaxRecords['deviceMajor'];
  deviceMinor: PaxRecords['deviceMinor'];
  readonly #xattrs: Xattrs = new Map();
  /** A copy for entries that have none of their own. */
  #shared: Xattrs | undefined;

  /**
   * Takes the records of one more global header.
   *
   * @throws MalformedTarError where it gives all entries one path, link target, size or sparse map: no writer does that, readers differ in
   * what they make of it, and that is how an archive shows one content to a scanner and another to its user. Also for more attributes than
   * the bounds above
   */
  add(added: PaxRecords): void {
    if (notNil(added.path) || notNil(added.linkPath) || notNil(added.size) || added.sparse !== undefined) {
      throw new MalformedTarError(
        'its global pax header sets a path, link target, size or sparse map for all entries',
      );
    }
    this.uid = inForce(added.uid, this.uid);
    this.gid = inForce(added.gid, this.gid);
    this.mtime = inForce(added.mtime, this.mtime);
    this.deviceMajor = inForce(added.deviceMajor, this.deviceMajor);
    this.deviceMinor = inForce(added.deviceMinor, this.deviceMinor);
    if (added.xattrs === undefined) return;
    applyXattrs(this.#xattrs, added.xattrs);
    this.#shared = undefined;
    if (this.#xattrs.size > MAX_GLOBAL_XATTRS) throw tooManyXattrs('global pax headers', MAX_GLOBAL_XATTRS);
    let bytes = 0;
    for (const [name, value] of this.#xattrs) bytes += name.length + value.length;
    if (bytes > MAX_GLOBAL_XATTR_BYTES) {
      throw new MalformedTarError(
        `its global pax headers set extended attributes of ${bytes} bytes, the limit is ${MAX_GLOBAL_XATTR_BYTES}`,
      );
    }
  }

  /** Attributes of an entry: the global ones, then its own; an empty value takes a global one back. Undefined when none are left. */
  withXattrs(own: PaxRecords['xattrs']): ReadonlyMap<string, Uint8Array> | undefined {
    if (own === undefined) this.#shared ??= new Map(this.#xattrs);
    const xattrs = own === undefined ? this.#shared! : new Map(this.#xattrs);
    if (own !== undefined) applyXattrs(xattrs, own);
    return xattrs.size === 0 ? undefined : xattrs;
  }
}

/** Puts the attributes of a pax header over others. */
function applyXattrs(xattrs: Xattrs, own: NonNullable<PaxRecords['xattrs']>): void {
  for (const [name, value] of own) {
    if (name.includes('\0'))
      throw new MalformedTarError(`its extended attribute ${printable(name)} has a NUL byte`);
    if (value === null || (value.length === 0 && xattrs.get(name)?.length)) xattrs.delete(name);
    else xattrs.set(name, value);
  }
  // Of an access list in both forms the numbers count.
  for (const [key, name] of textKeys) if (xattrs.has(name)) xattrs.delete(key);
}

/** The entry's own value, else the global one; undefined where neither says anything or the entry takes the global one back. */
export function inForce<T>(own: T | null | undefined, global: T | null | undefined): T | undefined {
  return (own === undefined ? global : own) ?? undefined;
}

export function tooManyXattrs(where: string, limit: number): MalformedTarError {
  return new MalformedTarError(`its ${where} set more than ${limit} extended attributes`);
}

function notNil(value: unknown): boolean {
  return value !== undefined && value !== null;
}
