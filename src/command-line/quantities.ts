import { UsageError, printable } from '../errors.ts';

/** `7` → 7; throws UsageError naming the flag when it is no whole number from `least` up. */
export function parseCount(text: string, flag: string, least: number): number {
  const count = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (!(count >= least)) {
    throw new UsageError(`${flag} takes a whole number from ${least} up, not "${printable(text)}"`);
  }
  return count;
}

const byteUnits: Readonly<Record<string, number>> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/** `10G`, `500MiB`, `1048576` → bytes (units are powers of 1024). */
export function parseBytes(text: string, flag: string): number {
  const match = /^(\d{1,12}(?:\.\d{1,6})?)([kmgt]?)(?:i?b)?$/i.exec(text);
  if (match === null) throw new UsageError(`${flag} takes a size as 500M or 10G, not "${printable(text)}"`);
  return Math.floor(Number(match[1]) * byteUnits[match[2]!.toLowerCase()]!);
}

const millisecondUnits: Readonly<Record<string, number>> = { ms: 1, '': 1000, s: 1000, m: 60_000 };

/** `500ms`, `2s`, `1m`, `2` (seconds) → milliseconds. */
export function parseDuration(text: string, flag: string): number {
  const match = /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|)$/.exec(text);
  if (match === null) throw new UsageError(`${flag} takes a time as 500ms or 2s, not "${printable(text)}"`);
  return Number(match[1]) * millisecondUnits[match[2]!]!;
}
