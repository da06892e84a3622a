import { loadNative, type Native } from '../../sys/native.ts';
import {
  ENDS_EARLY,
  MalformedDataError,
  TRAILING_BYTES,
  WINDOW_LOG_MAX,
  WINDOW_TOO_LARGE,
} from './byte-reader.ts';

type Koffi = Native['koffi'];
type Library = Native['library'];

/** Bytes outside V8's heap, so that a native function may use their address while JavaScript runs. */
export interface Region {
  readonly bytes: Uint8Array;
  readonly address: bigint;
}

/** The result of one run of a native decoder. */
export interface DecoderRun {
  /** Number of bytes put into the output. */
  readonly produced: number;
  /** True if a gzip member or zstd frame has ended, and all of its output is out. */
  readonly ended: boolean;
}

/** A native decoder. It works through its input one call at a time. */
export interface Engine {
  /** Sets the input. The last one must be used up. */
  feed(input: Region): void;
  /** Number of input bytes that are not used yet. */
  left(): number;
  /**
   * Decodes until the input is used up, the output is full, or a member ends.
   *
   * @throws MalformedDataError
   */
  run(output: Region): DecoderRun;
  /** The meaning of the first byte after a member. */
  after(byte: number): 'member' | 'padding' | 'garbage';
  /**
   * Switches the comparison of checksums in the data (gzip's CRC-32, zstd's XXH64) on or off. At first it is
   * on. It costs 3 to 8 % of the CPU of a pull, see docs/blobs.md.
   */
  compareChecksums(compare: boolean): void;
  /** Prepares for another member. */
  restart(): void;
  /** Frees the native memory. */
  close(): void;
}

const EMPTY_REGION: Region = { bytes: new Uint8Array(0), address: 0n };

/**
 * Decodes one blob in steps: a sequence of members, and zeros that may follow them. An engine serves one blob
 * after another.
 */
export class StepDecoder {
  readonly #engine: Engine;
  #input = EMPTY_REGION;
  #state: 'member' | 'between' | 'padding' = 'member';
  #outputWasFull = false;

  /** @param compareChecksums see Engine */
  constructor(engine: Engine, compareChecksums: boolean) {
    this.#engine = engine;
    engine.feed(EMPTY_REGION);
    engine.restart();
    engine.compareChecksums(compareChecksums);
  }

  /** True if the next step needs more input. */
  get hungry(): boolean {
    return this.#engine.left() === 0 && !this.#outputWasFull;
  }

  /** Sets the input. The last one must be used up, and this one must not change until `hungry` is true. */
  feed(input: Region): void {
    this.#input = input;
    this.#engine.feed(input);
  }

  /**
   * Ends the blob after all input was fed.
   *
   * @throws MalformedDataError if it ends in a member
   */
  end(): undefined {
    if (this.#state === 'member') throw new MalformedDataError(ENDS_EARLY);
    return undefined;
  }

  /**
   * Decodes into the front of `output`. Returns the number of bytes, which may be 0.
   *
   * @throws MalformedDataError
   */
  step(output: Region): number {
    return this.#isInMember() ? this.#note(this.#engine.run(output), output) : 0;
  }

  /** Checks the bytes after a member. Returns false for padding, which is skipped. */
  #isInMember(): boolean {
    const { bytes } = this.#input;
    const rest = bytes.subarray(bytes.length - this.#engine.left());
    if (this.#state === 'between') {
      const meaning = this.#engine.after(rest[0]!);
      if (meaning === 'garbage') throw new MalformedDataError(TRAILING_BYTES);
      if (meaning === 'member') this.#engine.restart();
      this.#state = meaning;
    }
    if (this.#state === 'member') return true;
    if (rest.some((byte) => byte !== 0)) throw new MalformedDataError(TRAILING_BYTES);
    this.#engine.feed(EMPTY_REGION);
    return false;
  }

  #note({ produced, ended }: DecoderRun, output: Region): number {
    this.#outputWasFull = produced === output.bytes.length && !ended;
    if (ended) this.#state = 'between';
    return produced;
  }
}

/**
 * zlib and zstd as Node carries them, called in C. They run in the calling thread, from and into memory that
 * does not move.
 */
export interface NativeDecoders {
  readonly gzip: () => Engine;
  readonly zstd: () => Engine;
  /** Returns the address of bytes outside V8's heap, which do not move. */
  readonly locate: (bytes: Uint8Array) => Region;
}

let decoders: NativeDecoders | null | undefined;

/** Returns the decoders of this thread; null if no C function can be called or Node does not export these. */
export function nativeDecoders(): NativeDecoders | null {
  if (decoders === undefined) decoders = findDecoders();
  return decoders;
}

function findDecoders(): NativeDecoders | null {
  const native = loadNative();
  if (!native) return null;
  const { koffi, library } = native;
  try {
    return {
      gzip: nativeGzip(koffi, library),
      zstd: nativeZstd(koffi, library),
      locate: (bytes) => ({ bytes, address: koffi.address(bytes) }),
    };
  } catch {
    return null;
  }
}

/** Constants of zlib.h. */
const Z_NO_FLUSH = 0;
const Z_STREAM_END = 1;
const Z_NEED_DICT = 2;
const Z_BUF_ERROR = -5;
const Z_OK = 0;
/**
 * 15: a window of 32 KiB, the longest. 16: a gzip header and trailer, which zlib checks (RFC 1952), and no
 * other format.
 */
const GZIP_ONLY = 15 + 16;
const FIRST_MAGIC_BYTE = 0x1f;

/** The fields of `z_stream`, in order. */
const Z_STREAM = {
  next_in: 'uintptr_t',
  avail_in: 'unsigned int',
  total_in: 'unsigned long',
  next_out: 'uintptr_t',
  avail_out: 'unsigned int',
  total_out: 'unsigned long',
  msg: 'uintptr_t',
  state: 'uintptr_t',
  zalloc: 'uintptr_t',
  zfree: 'uintptr_t',
  opaque: 'uintptr_t',
  data_type: 'int',
  adler: 'unsigned long',
  reserved: 'unsigned long',
} as const;

/** The functions of zlib that are called. */
const ZLIB = {
  version: 'const char *zlibVersion()',
  init: 'int inflateInit2_(uintptr_t stream, int bits, const char *version, int size)',
  inflate: 'int inflate(uintptr_t stream, int flush)',
  reset: 'int inflateReset(uintptr_t stream)',
  validate: 'int inflateValidate(uintptr_t stream, int check)',
  end: 'int inflateEnd(uintptr_t stream)',
} as const;

/**
 * Finds the functions of a table of C declarations.
 *
 * @throws if one is missing
 */
function functionsOf<Name extends string>(
  library: Library,
  declarations: Readonly<Record<Name, string>>,
): Readonly<Record<Name, ReturnType<Library['func']>>> {
  const found = Object.entries<string>(declarations).map(([name, text]) => [name, library.func(text)]);
  return Object.fromEntries(found) as Record<Name, ReturnType<Library['func']>>;
}

/**
 * Returns a function that creates an engine for gzip, by the zlib inside Node.
 *
 * @throws if zlib's functions cannot be found
 */
function nativeGzip(koffi: Koffi, library: Library): () => Engine {
  const stream = koffi.struct(Z_STREAM);
  const size = koffi.sizeof(stream);
  const [nextIn, availIn, nextOut, availOut] = (
    ['next_in', 'avail_in', 'next_out', 'avail_out'] as const
  ).map((field) => koffi.offsetof(stream, field)) as [number, number, number, number];
  const { version, init, inflate, reset, validate, end } = functionsOf(library, ZLIB);
  const zlibVersion = version() as string;

  return () => {
    const memory = Buffer.from(new ArrayBuffer(size));
    const address = koffi.address(memory);
    if (init(address, GZIP_ONLY, zlibVersion, size) !== Z_OK) throw new Error('zlib cannot be initialised');
    return {
      feed(input: Region) {
        memory.writeBigUInt64LE(input.address, nextIn);
        memory.writeUInt32LE(input.bytes.length, availIn);
      },
      left: () => memory.readUInt32LE(availIn),
      run(output: Region): DecoderRun {
        memory.writeBigUInt64LE(output.address, nextOut);
        memory.writeUInt32LE(output.bytes.length, availOut);
        const code = inflate(address, Z_NO_FLUSH) as number;
        if ((code < 0 && code !== Z_BUF_ERROR) || code === Z_NEED_DICT)
          throw new MalformedDataError('is corrupt');
        return {
          produced: output.bytes.length - memory.readUInt32LE(availOut),
          ended: code === Z_STREAM_END,
        };
      },
      // GNU tar and tape drives pad with zeros. Any other byte after a member must begin another member.
      after: (byte) => (byte === FIRST_MAGIC_BYTE ? 'member' : byte === 0 ? 'padding' : 'garbage'),
      compareChecksums: (compare) => void validate(address, compare ? 1 : 0),
      restart: () => void reset(address),
      close: () => void end(address),
    };
  };
}

/** Constants of zstd.h. */
const ZSTD_D_WINDOW_LOG_MAX = 100;
const ZSTD_D_FORCE_IGNORE_CHECKSUM = 1002;
const ZSTD_RESET_SESSION_ONLY = 1;

/** The functions of zstd that are called. */
const ZSTD = {
  create: 'uintptr_t ZSTD_createDStream()',
  setParameter: 'size_t ZSTD_DCtx_setParameter(uintptr_t stream, int parameter, int value)',
  decompress: 'size_t ZSTD_decompressStream(uintptr_t stream, uintptr_t output, uintptr_t input)',
  reset: 'size_t ZSTD_DCtx_reset(uintptr_t stream, int directive)',
  isError: 'unsigned int ZSTD_isError(size_t code)',
  errorName: 'const char *ZSTD_getErrorName(size_t code)',
  free: 'size_t ZSTD_freeDStream(uintptr_t stream)',
} as const;

/**
 * Returns a function that creates an engine for zstd, by the library inside Node.
 *
 * @throws if the library's functions cannot be found
 */
function nativeZstd(koffi: Koffi, library: Library): () => Engine {
  // ZSTD_inBuffer and ZSTD_outBuffer: pointer, size, position.
  const buffer = koffi.struct({ pointer: 'uintptr_t', size: 'size_t', position: 'size_t' });
  const size = koffi.sizeof(buffer);
  const at = { size: koffi.offsetof(buffer, 'size'), position: koffi.offsetof(buffer, 'position') };
  const { create, setParameter, decompress, reset, isError, errorName, free } = functionsOf(library, ZSTD);

  return () => {
    const stream = create() as bigint | number;
    if (Number(stream) === 0) throw new Error('zstd cannot be initialised');
    setParameter(stream, ZSTD_D_WINDOW_LOG_MAX, WINDOW_LOG_MAX);
    const memory = Buffer.from(new ArrayBuffer(2 * size));
    const input = koffi.address(memory);
    const output = input + BigInt(size);
    const number = (offset: number) => Number(memory.readBigUInt64LE(offset));
    return {
      feed({ address, bytes }: Region) {
        memory.writeBigUInt64LE(address, 0);
        memory.writeBigUInt64LE(BigInt(bytes.length), at.size);
        memory.writeBigUInt64LE(0n, at.position);
      },
      left: () => number(at.size) - number(at.position),
      run(target: Region): DecoderRun {
        memory.writeBigUInt64LE(target.address, size);
        memory.writeBigUInt64LE(BigInt(target.bytes.length), size + at.size);
        memory.writeBigUInt64LE(0n, size + at.position);
        const code = decompress(stream, output, input) as bigint | number;
        if (isError(code) !== 0) throw malformed(errorName(code) as string);
        return { produced: number(size + at.position), ended: Number(code) === 0 };
      },
      // Frames follow one another (RFC 8878). The decoder itself tells a frame from garbage.
      after: () => 'member',
      compareChecksums: (compare) => void setParameter(stream, ZSTD_D_FORCE_IGNORE_CHECKSUM, compare ? 0 : 1),
      restart: () => void reset(stream, ZSTD_RESET_SESSION_ONLY),
      close: () => void free(stream),
    };
  };
}

function malformed(name: string): MalformedDataError {
  if (/window|memory/i.test(name)) return new MalformedDataError(WINDOW_TOO_LARGE);
  return new MalformedDataError(`is corrupt (${name})`);
}
