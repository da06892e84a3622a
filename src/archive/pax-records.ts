import { accessListText, textKeys } from '../tar/access-list.ts';

/** `%d key=value\n` with the length of the whole record, in bytes (POSIX pax). Text is written as bytes, one for each character. */
export function paxRecord(key: string, value: string | Uint8Array): Buffer {
  const bytes = typeof value === 'string' ? Buffer.from(value, 'latin1') : value;
  const rest = key.length + bytes.length + 3;
  let length = rest + String(rest).length;
  if (String(length).length > String(rest).length) length = rest + String(length).length;
  return Buffer.concat([Buffer.from(`${length} ${key}=`, 'latin1'), bytes, Buffer.from('\n')]);
}

/** The records of an extended attribute: an access list as text too, which is what `tar --acls` reads. */
export function xattrRecords(name: string, value: Uint8Array): Buffer[] {
  if (textKeys.has(name)) return [paxRecord(name, value)];
  const [key] = [...textKeys].find(([, attribute]) => attribute === name) ?? [];
  const text = key === undefined ? undefined : accessListText(value);
  const record = xattrRecord(name, value);
  return key === undefined || text === undefined ? [record] : [paxRecord(key, text), record];
}

/**
 * The record of an extended attribute. A name with an equals sign would end at it: libarchive's kind of record takes that, with the
 * name percent-encoded and the value in base64.
 */
function xattrRecord(name: string, value: Uint8Array): Buffer {
  if (!name.includes('=')) return paxRecord(`SCHILY.xattr.${name}`, value);
  const encoded = name.replaceAll(/[%=]/g, (character) => (character === '%' ? '%25' : '%3D'));
  return paxRecord(`LIBARCHIVE.xattr.${encoded}`, Buffer.from(value).toString('base64'));
}

/** A time as pax writes it; the nanoseconds count upwards from the second, before 1970 too. */
export function paxTime(seconds: number, nanoseconds: number): string {
  if (nanoseconds === 0) return String(seconds);
  const negative = seconds < 0;
  const whole = negative ? -(seconds + 1) : seconds;
  const fraction = negative ? 1_000_000_000 - nanoseconds : nanoseconds;
  const digits = String(fraction).padStart(9, '0').replace(/0+$/, '');
  return `${negative ? '-' : ''}${whole}.${digits}`;
}
