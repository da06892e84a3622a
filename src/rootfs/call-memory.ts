import { compressesFiles, type FileStat, typeOfMode } from './filesystem.ts';

/** Offsets in bytes: two names, a structure, directory entries. */
const LAYOUT = { name: 0, second: 8192, structure: 16_384, list: 24_576, size: 57_344 } as const;
const NAME_BUFFER_BYTES = 8191;

/** Memory at a fixed address that passes names and structures to and from system calls. */
export class CallMemory {
  /** Address of the second name; `structure` and `list` are addresses too. */
  readonly second: number;
  readonly structure: number;
  readonly list: number;
  readonly listSize = LAYOUT.size - LAYOUT.list;
  readonly longestName = NAME_BUFFER_BYTES;
  readonly #name: number;
  readonly #bytes = Buffer.alloc(LAYOUT.size);
  readonly #view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.length);
  /** The last device converted: major and minor as statx(2) returns them, and its number in stat(2). */
  #lastDevice = { major: 0, minor: 0, number: '0' };

  constructor(addressOf: (memory: Uint8Array) => number) {
    const address = addressOf(this.#bytes);
    this.#name = address + LAYOUT.name;
    this.second = address + LAYOUT.second;
    this.structure = address + LAYOUT.structure;
    this.list = address + LAYOUT.list;
  }

  /**
   * Writes a byte string and a NUL, and returns its address. A string that is too long is cut to a length
   * that the kernel still refuses.
   */
  putName(name: string): number {
    this.#put(name, LAYOUT.name);
    return this.#name;
  }

  /** Does the same for a second string in the same call. */
  putSecond(name: string): number {
    this.#put(name, LAYOUT.second);
    return this.second;
  }

  #put(name: string, at: number): void {
    this.#bytes[at + this.#bytes.write(name, at, NAME_BUFFER_BYTES, 'latin1')] = 0;
  }

  /** Returns the first `length` bytes at `second`. */
  takeSecond(length: number): string {
    return this.#bytes.toString('latin1', LAYOUT.second, LAYOUT.second + length);
  }

  /** Writes two equal struct timespec to `structure`, for utimensat(2). */
  putTimes(seconds: number, nanoseconds: number): void {
    const view = this.#view;
    for (let at: number = LAYOUT.structure; at < LAYOUT.structure + 32; at += 16) {
      view.setUint32(at, seconds >>> 0, true);
      view.setInt32(at + 4, Math.floor(seconds / 0x1_0000_0000), true);
      view.setUint32(at + 8, nanoseconds, true);
      view.setUint32(at + 12, 0, true);
    }
  }

  /** Reads the struct statx at `structure`, which is the same on every architecture: statx(2). */
  takeStat(): FileStat {
    const at = LAYOUT.structure;
    const view = this.#view;
    const mode = view.getUint16(at + 28, true);
    return {
      type: typeOfMode(mode),
      mode: mode & 0o7777,
      uid: view.getUint32(at + 20, true),
      gid: view.getUint32(at + 24, true),
      size: this.#int64(at + 40),
      mtimeSeconds: this.#int64(at + 112),
      mtimeNanoseconds: view.getUint32(at + 120, true),
      ctimeSeconds: this.#int64(at + 96),
      ctimeNanoseconds: view.getUint32(at + 104, true),
      links: view.getUint32(at + 16, true),
      deviceMajor: view.getUint32(at + 128, true),
      deviceMinor: view.getUint32(at + 132, true),
      identity: `${this.#device(at + 136)}:${this.#uint64(at + 32)}`,
    };
  }

  /** Avoids a BigInt, which costs as much as the system call. */
  #int64(at: number): number {
    return this.#view.getUint32(at, true) + this.#view.getInt32(at + 4, true) * 2 ** 32;
  }

  #uint64(at: number): number | bigint {
    const high = this.#view.getUint32(at + 4, true);
    if (high >= 2 ** 21) return this.#view.getBigUint64(at, true);
    return this.#view.getUint32(at, true) + high * 2 ** 32;
  }

  /** Returns a device's number. The last one is kept, since most files are on one device. */
  #device(at: number): string {
    const [major, minor] = [this.#view.getUint32(at, true), this.#view.getUint32(at + 4, true)];
    if (major !== this.#lastDevice.major || minor !== this.#lastDevice.minor)
      this.#lastDevice = { major, minor, number: String(deviceNumber(major, minor)) };
    return this.#lastDevice.number;
  }

  /** Reads the attributes of an inode at `structure`: ioctl_iflags(2). */
  takeFlags(): number {
    return this.#view.getUint32(LAYOUT.structure, true);
  }

  putFlags(flags: number): void {
    this.#view.setUint32(LAYOUT.structure, flags, true);
  }

  /**
   * Returns the free bytes, including those reserved for root. They come from f_bsize and f_bfree of the
   * struct statfs at `structure`: statfs(2). Infinite on a file system that compresses.
   */
  takeFreeSpace(): number {
    const at = LAYOUT.structure;
    if (compressesFiles(this.#view.getUint32(at, true))) return Infinity;
    const blockSize = Number(this.#view.getBigInt64(at + 8, true));
    return Number(this.#view.getBigUint64(at + 24, true)) * blockSize;
  }

  /**
   * Adds the names in `length` bytes of struct linux_dirent64 at `list` to `names`. A record has its length
   * at byte 16 and its name at byte 19: getdents(2).
   */
  takeNames(length: number, names: string[]): void {
    const end = LAYOUT.list + length;
    for (let at: number = LAYOUT.list; at < end; at += this.#view.getUint16(at + 16, true)) {
      const start = at + 19;
      const name = this.#bytes.toString('latin1', start, this.#bytes.indexOf(0, start));
      if (name !== '.' && name !== '..') names.push(name);
    }
  }
}

/** Returns the number that stat(2) has for a device: makedev(3). */
function deviceNumber(major: number, minor: number): bigint {
  const low = (minor & 0xff) | ((major & 0xfff) << 8);
  return BigInt(low) | (BigInt(minor & 0xffff_ff00) << 12n) | (BigInt(major & 0xffff_f000) << 32n);
}
