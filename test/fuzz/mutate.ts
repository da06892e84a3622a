import type { Random } from './random.ts';

/** Texts that have broken parsers. */
const oddTexts: readonly string[] = [
  '',
  '0',
  '-1',
  '1e999',
  '9007199254740993',
  '18446744073709551616',
  '0x10',
  'NaN',
  '__proto__',
  'constructor',
  '../../outside/escaped',
  '/proc/self/cwd/outside/escaped',
  '\u0000',
  'a\u0000b',
  '\r\n',
  '\r\nInjected: yes\r\n\r\n',
  '\u001b[2J\u001b]0;title\u0007',
  '\u202egnp.exe',
  '\ud800',
  '%00',
  '%2e%2e%2f',
  '"',
  "'",
  '$(touch outside/escaped)',
  ';touch outside/escaped',
  '-oProxyCommand=x',
  'ü'.repeat(300),
  'x'.repeat(70_000),
  ' ',
  '\t',
  '/',
  '.',
  '..',
  ':',
  '@',
  'sha256:',
  `sha256:${'0'.repeat(64)}`,
  `sha512:${'a'.repeat(128)}`,
  `sha256:${'g'.repeat(64)}`,
];

export function oddText(random: Random): string {
  return random.percent(80)
    ? random.pick(oddTexts)
    : random.bytes(random.below(40)).toString(random.percent(50) ? 'latin1' : 'utf8');
}

const bytesThatMatter = [0, 1, 0x0a, 0x0d, 0x20, 0x22, 0x2e, 0x2f, 0x30, 0x39, 0x7f, 0x80, 0xff];

type ByteChange = (random: Random, bytes: Buffer, at: number, length: number) => Buffer;

const byteChanges: readonly ByteChange[] = [
  (random, bytes, at) => {
    bytes[at]! ^= 1 << random.below(8);
    return bytes;
  },
  (random, bytes, at) => {
    bytes[at] = random.pick(bytesThatMatter);
    return bytes;
  },
  (random, bytes, at, length) => {
    random.bytes(length).copy(bytes, at);
    return bytes;
  },
  (_, bytes, at, length) => Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]),
  (_, bytes, at, length) =>
    Buffer.concat([bytes.subarray(0, at), bytes.subarray(at, at + length), bytes.subarray(at)]),
  (random, bytes, at) =>
    Buffer.concat([bytes.subarray(0, at), Buffer.from(oddText(random)), bytes.subarray(at)]),
  (_, bytes, at) => bytes.subarray(0, at),
  (random, bytes, at, length) => {
    bytes.copyWithin(random.below(bytes.length), at, at + length);
    return bytes;
  },
];

/** Returns the bytes with some of them changed, removed, doubled or inserted. */
export function mutateBytes(random: Random, original: Uint8Array, most = 4): Buffer {
  let bytes: Buffer = Buffer.from(original);
  for (let n = 0; n <= random.below(most); n += 1) {
    if (bytes.length === 0) return random.bytes(random.below(64));
    const at = random.below(bytes.length);
    const length = 1 + random.below(Math.min(random.percent(20) ? 4096 : 16, bytes.length - at));
    bytes = random.pick(byteChanges)(random, bytes, at, length);
  }
  return bytes;
}

const oddValues: readonly unknown[] = [
  null,
  true,
  false,
  0,
  -0,
  -1,
  0.5,
  1e308,
  2 ** 53,
  Number.MAX_SAFE_INTEGER,
  [],
  {},
  [[]],
  [null],
  { '': '' },
];

function nested(depth: number): unknown {
  let value: unknown = 'bottom';
  for (let n = 0; n < depth; n += 1) value = n % 2 === 0 ? [value] : { a: value };
  return value;
}

function oddValue(random: Random): unknown {
  const kind = random.below(10);
  // Cloned: the value becomes a part of the document, which later changes alter.
  if (kind < 4) return structuredClone(random.pick(oddValues));
  if (kind < 8) return oddText(random);
  if (kind === 8) return nested(random.pick([5, 100, 2000]));
  return Array.from({ length: random.pick([2, 200, 5000]) }, () => structuredClone(random.pick(oddValues)));
}

type Holder = Record<string, unknown>;

/** Returns every position of a value in a document. Documents may be nested deeper than the stack allows. */
function places(document: unknown): [holder: Holder, key: string][] {
  const found: [Holder, string][] = [];
  const waiting = [document];
  for (let value = waiting.pop(); value !== undefined; value = waiting.pop()) {
    if (typeof value !== 'object' || value === null) continue;
    // Named members of an array are not in its JSON; they may even lead back to the array.
    const members = Array.isArray(value) ? Object.entries([...value]) : Object.entries(value);
    for (const [key, member] of members) {
      found.push([value as Holder, key]);
      waiting.push(member);
    }
  }
  return found;
}

/** Returns a document with some values changed, doubled, moved or removed, sometimes with invalid JSON. */
export function mutateJson(random: Random, document: unknown, most = 3): Buffer {
  const copy = structuredClone(document);
  for (let n = 0; n <= random.below(most); n += 1) {
    const all = places(copy);
    if (all.length === 0) break;
    const [holder, key] = random.pick(all);
    const kind = random.below(10);
    if (kind === 0) delete holder[key];
    else if (kind === 1) set(holder, oddText(random), holder[key]);
    else if (kind === 2) set(holder, key, random.pick(all)[0]);
    else if (kind === 3) set(holder, key, [holder[key], holder[key]]);
    else if (kind === 4 && typeof holder[key] === 'string') {
      const text: string = holder[key];
      const at = random.below(text.length + 1);
      set(holder, key, `${text.slice(0, at)}${oddText(random)}${text.slice(at)}`);
    } else set(holder, key, oddValue(random));
    if (isCircular(copy)) set(holder, key, null);
  }
  const text = Buffer.from(JSON.stringify(isCircular(copy) ? document : copy) ?? 'null');
  return random.percent(15) ? mutateBytes(random, text) : text;
}

/** Sets a member of that name, also `__proto__`; an assignment would replace the prototype. */
function set(holder: Holder, key: string, value: unknown): void {
  Object.defineProperty(holder, key, { value, configurable: true, enumerable: true, writable: true });
}

function isCircular(value: unknown): boolean {
  try {
    JSON.stringify(value);
    return false;
  } catch {
    return true;
  }
}
