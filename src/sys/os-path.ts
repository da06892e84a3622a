import { isUtf8 } from 'node:buffer';
import { mkdirSync, openSync, realpathSync } from 'node:fs';
import path from 'node:path';

/**
 * Paths of the operating system are bytes. Here they are text: UTF-8 decoded, and each byte that is not UTF-8 as the lone surrogate
 * U+DC80 to U+DCFF (as Python's `surrogateescape`, PEP 383), so that nothing is lost and `node:path` works as on any text.
 */
export function pathText(bytes: Uint8Array): string {
  if (isUtf8(bytes)) return Buffer.from(bytes).toString();
  let text = '';
  for (let at = 0; at < bytes.length;) {
    const character = bytes.subarray(at, at + sequenceLength(bytes[at]!));
    if (isUtf8(character)) {
      text += Buffer.from(character).toString();
      at += character.length;
    } else {
      text += String.fromCharCode(0xdc00 + bytes[at]!);
      at += 1;
    }
  }
  return text;
}

/** The bytes of a path. */
export function pathBytes(text: string): Buffer {
  if (text.isWellFormed()) return Buffer.from(text);
  const parts = text.split(/([\udc80-\udcff])/u);
  return Buffer.concat(
    parts.map((part, index) =>
      index % 2 === 0 ? Buffer.from(part) : Buffer.of(part.charCodeAt(0) - 0xdc00),
    ),
  );
}

/** A path as Node's file calls and streams take it. */
export function osPath(text: string): string | Buffer {
  return text.isWellFormed() ? text : pathBytes(text);
}

/** `path.resolve` of one name, also where the working directory's name is not UTF-8. */
export function absolutePath(name: string): string {
  if (path.isAbsolute(name)) return path.normalize(name);
  return path.join(pathText(realpathSync.native('.', { encoding: 'buffer' })), name);
}

/**
 * A path in UTF-8 for a file or directory that has none: through a descriptor of this process, which stays open (proc_pid_fd(5)).
 *
 * @throws what open(2) says
 */
export function utf8Path(name: string): string {
  if (name.isWellFormed()) return name;
  return `/proc/self/fd/${openSync(pathBytes(name), O_PATH)}`;
}

/** As `utf8Path`, for a directory that is made where it is missing. */
export function utf8Directory(name: string): string {
  if (!name.isWellFormed()) mkdirSync(pathBytes(name), { recursive: true });
  return utf8Path(name);
}

/** open(2): not among Node's constants. */
const O_PATH = 0o10000000;

/** By the first byte (RFC 3629). */
function sequenceLength(first: number): number {
  if (first < 0x80) return 1;
  if (first < 0xe0) return 2;
  return first < 0xf0 ? 3 : 4;
}
