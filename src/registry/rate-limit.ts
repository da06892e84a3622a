import { printable } from '../errors.ts';

/** Reads one header of an answer; undefined when it is not there. */
export type HeaderReader = (name: string) => string | undefined;

function inWords(seconds: number): string {
  const hours = seconds / 3600;
  if (hours >= 1 && Number.isInteger(hours)) return hours === 1 ? 'an hour' : `${hours} hours`;
  const minutes = seconds / 60;
  if (minutes >= 1 && Number.isInteger(minutes)) return minutes === 1 ? 'a minute' : `${minutes} minutes`;
  return `${seconds} s`;
}

/** `100;w=21600`: 100 requests in 21600 seconds. */
function parseQuota(value: string | undefined): { count: number; window: number | undefined } | undefined {
  const match = /^\s*(\d{1,12})\s*(?:;\s*w=(\d{1,12}))?/.exec(value ?? '');
  if (!match) return undefined;
  return { count: Number(match[1]), window: match[2] === undefined ? undefined : Number(match[2]) };
}

/**
 * What the `ratelimit-*` headers of an answer say, as the end of a sentence: `0 of 100 requests left in 6 hours, counted for
 * 203.0.113.7`. Undefined when they say nothing. Only what the server says is printed, never a number of our own.
 */
export function describeRateLimit(header: HeaderReader): string | undefined {
  const limit = parseQuota(header('ratelimit-limit') ?? header('x-ratelimit-limit'));
  const left = parseQuota(header('ratelimit-remaining') ?? header('x-ratelimit-remaining'));
  const source = header('docker-ratelimit-source');
  const window = limit?.window ?? left?.window;
  const parts: string[] = [];
  if (left && limit) parts.push(`${left.count} of ${limit.count} requests left`);
  else if (limit) parts.push(`${limit.count} requests are allowed`);
  else if (left) parts.push(`${left.count} requests left`);
  if (parts.length === 0) return undefined;
  const per = window === undefined ? '' : ` in ${inWords(window)}`;
  return `${parts[0]}${per}${source === undefined ? '' : `, counted for ${printable(source, 80)}`}`;
}
