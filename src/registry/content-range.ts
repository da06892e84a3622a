/** What a 206 or 416 answer says it holds (RFC 9110, 14.4). */
export interface ContentRange {
  /** Undefined in a 416 answer. */
  readonly start: number | undefined;
  /** First byte that is not in it; undefined in a 416 answer. */
  readonly end: number | undefined;
  /** Of the whole, in bytes; undefined for `*`. */
  readonly size: number | undefined;
}

/**
 * Reads `bytes 10-19/100`, with `*` for a size that is not known or, in a 416 answer, for no range; without the word `bytes`
 * too, as the registry of 2014 sends it. Undefined when it is missing, malformed or contradicts itself.
 */
export function parseContentRange(value: string | undefined): ContentRange | undefined {
  const match = /^\s*(?:bytes[ =:]+)?(?:(\d{1,15})-(\d{1,15})|\*)\/(\d{1,15}|\*)\s*$/i.exec(value ?? '');
  if (!match) return undefined;
  const [, first, last, total] = match;
  const size = total === '*' ? undefined : Number(total);
  if (first === undefined || last === undefined) return { start: undefined, end: undefined, size };
  const start = Number(first);
  const end = Number(last) + 1;
  if (start >= end || (size !== undefined && end > size)) return undefined;
  return { start, end, size };
}
