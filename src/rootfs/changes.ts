import { textKeys } from '../tar/access-list.ts';
import type { Entry } from '../tar/entry.ts';
import { composeLine } from '../tar/mtree.ts';

/** Bytes of lines that are sent at once: each time costs about 0.3 ms. */
const BATCH_SIZE = 256 * 1024;

/** What a layer did, in order, as lines of `composeLine`. Paths are those on disk, metadata what the image says, whether it could be set or not. */
export class ChangeLog {
  readonly #tell: ((lines: Uint8Array<ArrayBuffer>) => void) | undefined;
  #bytes = Buffer.allocUnsafeSlow(BATCH_SIZE);
  #length = 0;

  /** @param tell gets the lines, many at a time; without it all stay until they are taken */
  constructor(tell?: (lines: Uint8Array<ArrayBuffer>) => void) {
    this.#tell = tell;
  }

  /**
   * An entry was put at `path`. With access lists by name it is noted again when the names are numbers.
   *
   * @param target of a hard link: its other name on disk
   */
  written(path: string, entry: Entry, target: string): void {
    const { mode, uid, gid, size, mtimeSeconds, mtimeNanoseconds, deviceMajor, deviceMinor } = entry;
    let { xattrs } = entry;
    const linkPath = entry.type === 'hardlink' ? target : entry.linkPath;
    if (xattrs) xattrs = new Map([...xattrs].filter(([name]) => !textKeys.has(name)));
    this.#add(
      composeLine({
        type: entry.type,
        path,
        linkPath,
        mode,
        uid,
        gid,
        size,
        mtimeSeconds,
        mtimeNanoseconds,
        deviceMajor,
        deviceMinor,
        xattrs,
      }),
    );
  }

  /** A directory was made at `path` that no entry asks for: root's. */
  made(path: string, mode: number, mtimeSeconds: number, mtimeNanoseconds: number): void {
    const owner = { uid: 0, gid: 0, xattrs: undefined };
    const nothing = { linkPath: '', size: 0, deviceMajor: 0, deviceMinor: 0 };
    this.#add(
      composeLine({ type: 'directory', path, mode, mtimeSeconds, mtimeNanoseconds, ...owner, ...nothing }),
    );
  }

  /** What stood at `path` is gone, with all below it. */
  removed(path: string): void {
    this.#add(composeLine({ type: 'removed', path }));
  }

  /** The lines since the last call that were not sent. */
  take(): Uint8Array<ArrayBuffer> {
    const lines = this.#bytes.subarray(0, this.#length);
    this.#bytes = Buffer.allocUnsafeSlow(BATCH_SIZE);
    this.#length = 0;
    return lines;
  }

  #add(line: string): void {
    if (this.#tell && this.#length >= BATCH_SIZE / 2) this.#tell(this.take());
    if (this.#length + line.length > this.#bytes.length) {
      const larger = Buffer.allocUnsafeSlow(2 * (this.#bytes.length + line.length));
      this.#bytes.copy(larger, 0, 0, this.#length);
      this.#bytes = larger;
    }
    this.#length += this.#bytes.write(line, this.#length, 'latin1');
  }
}
