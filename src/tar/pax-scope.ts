import { printable } from '../errors.ts';
import { textKeys } from './access-list.ts';
import { MalformedTarError } from './malformed.ts';
import type { PaxRecords } from './pax.ts';

/** The records that global headers (type `g`) have left in force. */
export type PaxGlobals = Readonly<PaxRecords> | undefined;

/**
 * The records in force after one more global header.
 *
 * @throws MalformedTarError where it gives all entries one path, link target, size or sparse map: no writer does that, readers differ in
 * what they make of it, and that is how an archive shows one content to a scanner and another to its user.
 */
export function addGlobals(before: PaxGlobals, added: PaxRecords): PaxGlobals {
  if (notNil(added.path) || notNil(added.linkPath) || notNil(added.size) || added.sparse !== undefined) {
    throw new MalformedTarError(
      'its global pax header sets a path, link target, size or sparse map for all entries',
    );
  }
  const xattrs = mergeXattrs(before?.xattrs, added.xattrs);
  return {
    path: undefined,
    linkPath: undefined,
    size: undefined,
    sparse: undefined,
    uid: inForce(added.uid, before?.uid),
    gid: inForce(added.gid, before?.gid),
    mtime: inForce(added.mtime, before?.mtime),
    deviceMajor: inForce(added.deviceMajor, before?.deviceMajor),
    deviceMinor: inForce(added.deviceMinor, before?.deviceMinor),
    xattrs,
  };
}

/** The entry's own value, else the global one; undefined where neither says anything or the entry takes the global one back. */
export function inForce<T>(own: T | null | undefined, global: T | null | undefined): T | undefined {
  return (own === undefined ? global : own) ?? undefined;
}

/** Attributes of an entry: the global ones, then its own; an empty value takes a global one back. Undefined when none are left. */
export function mergeXattrs(
  globals: ReadonlyMap<string, Uint8Array | null> | undefined,
  own: ReadonlyMap<string, Uint8Array | null> | undefined,
): Map<string, Uint8Array> | undefined {
  if (globals === undefined && own === undefined) return undefined;
  const merged = new Map<string, Uint8Array>();
  for (const source of [globals, own]) {
    for (const [name, value] of source ?? []) {
      if (name.includes('\0'))
        throw new MalformedTarError(`its extended attribute ${printable(name)} has a NUL byte`);
      if (value === null || (value.length === 0 && merged.get(name)?.length)) merged.delete(name);
      else merged.set(name, value);
    }
  }
  // Whoever writes an access list in both forms has said the numbers.
  for (const [key, name] of textKeys) if (merged.has(name)) merged.delete(key);
  return merged.size === 0 ? undefined : merged;
}

function notNil(value: unknown): boolean {
  return value !== undefined && value !== null;
}
