import { type ByteReader, ENDS_EARLY, MalformedDataError, TRAILING_BYTES } from './byte-reader.ts';

/** Bytes outside V8's heap, so that a native function may use their address while JavaScript runs. */
export interface Region {
  readonly bytes: Uint8Array;
  readonly address: bigint;
}

/** The result of one run of a native decoder. */
export interface DecoderRun {
  /** Bytes put into the output. */
  readonly produced: number;
  /** A gzip member or zstd frame ended, and everything of it is out. */
  readonly ended: boolean;
}

/** A native decoder: it works through its input one call at a time. */
export interface Engine {
  /** Sets the input; the last one must be used up. */
  feed(input: Region): void;
  /** Bytes of the input that are not used yet. */
  left(): number;
  /**
   * Decodes until the input is used up, the output is full, or a member ends, in Node's thread pool.
   *
   * @throws MalformedDataError
   */
  run(output: Region): Promise<DecoderRun>;
  /** The same in the calling thread. */
  runNow(output: Region): DecoderRun;
  /** The meaning of the first byte after a member. */
  after(byte: number): 'member' | 'padding' | 'garbage';
  /** Whether to compare checksums in the data (gzip's CRC-32, zstd's XXH64), as it does at first: they cost 3 % of a pull. */
  compareChecksums(compare: boolean): void;
  /** Makes ready for another member. */
  restart(): void;
  /** Frees the native memory; not while `run` is at work. */
  close(): void;
}

/** Sizes in bytes. Larger ones were not faster, and smaller ones cost more in calls: see docs/blobs.md. */
const INPUT = 256 * 1024;
const OUTPUT = 512 * 1024;

/**
 * The bytes of a reader, in two buffers that alternate: while the decoder uses one, the other is filled.
 *
 * @returns a function that resolves to the next bytes, undefined at the end; those given before are no longer valid
 */
function readAhead(
  reader: ByteReader,
  [one, other]: readonly [Region, Region],
): () => Promise<Region | undefined> {
  let [filled, free] = [one, other];
  let filling = reader.read(filled.bytes);
  return async () => {
    const length = await filling;
    if (length === 0) return undefined;
    const { bytes, address } = filled;
    [filled, free] = [free, filled];
    filling = reader.read(filled.bytes);
    filling.catch(() => undefined);
    return { bytes: bytes.subarray(0, length), address };
  };
}

/**
 * Decodes `reader` through an engine: while the caller has one output buffer, the pool fills the other. A chunk is valid until
 * the next one is asked for.
 *
 * @param compareChecksums see Engine
 * @throws MalformedDataError, and what the reader throws
 */
export async function* decodeByEngine(
  open: () => Engine,
  compareChecksums: boolean,
  reader: ByteReader,
  allocate: (length: number) => Region,
): AsyncGenerator<Uint8Array, void, undefined> {
  const inputs = [allocate(INPUT), allocate(INPUT)] as const;
  const outputs = [allocate(OUTPUT), allocate(OUTPUT)] as const;
  const engine = open();
  const decoder = new StepDecoder(engine, compareChecksums);
  const nextInput = readAhead(reader, inputs);
  let closed = false;
  let atWork: Promise<unknown> = Promise.resolve();
  /** Bytes produced, perhaps none yet; undefined at the end. */
  const advance = async (output: Region): Promise<number | undefined> => {
    if (decoder.hungry) {
      const next = await nextInput();
      if (closed) return undefined;
      if (!next) return decoder.end();
      decoder.feed(next);
    }
    const step = decoder.stepInPool(output);
    atWork = step.catch(() => undefined);
    return step;
  };
  try {
    let turn: 0 | 1 = 0;
    let running = advance(outputs[turn]);
    for (;;) {
      const produced = await running;
      if (produced === undefined) {
        // At the end nothing is under way that could still write to them; V8 would keep those of many layers for long.
        for (const region of [...outputs, ...inputs]) release(region);
        return;
      }
      const { bytes } = outputs[turn];
      turn = turn === 0 ? 1 : 0;
      running = advance(outputs[turn]);
      running.catch(() => undefined);
      if (produced > 0) yield bytes.subarray(0, produced);
    }
  } finally {
    // The native call at work, if any, still uses the buffers; input on its way is dropped.
    closed = true;
    await atWork;
    engine.close();
  }
}

/** Frees a region's memory now. */
function release({ bytes }: Region): void {
  if (bytes.buffer instanceof ArrayBuffer) bytes.buffer.transfer(0);
}

const NOTHING: Region = { bytes: new Uint8Array(0), address: 0n };

/** One blob through an engine, step by step: a sequence of members, and zeros that may follow it. The engine serves one blob after another. */
export class StepDecoder {
  readonly #engine: Engine;
  #input = NOTHING;
  #state: 'member' | 'between' | 'padding' = 'member';
  #outputWasFull = false;

  /** @param compareChecksums see Engine */
  constructor(engine: Engine, compareChecksums: boolean) {
    this.#engine = engine;
    engine.feed(NOTHING);
    engine.restart();
    engine.compareChecksums(compareChecksums);
  }

  /** The next step needs more input. */
  get hungry(): boolean {
    return this.#engine.left() === 0 && !this.#outputWasFull;
  }

  /** Sets the input; the last one must be used up, and this one stay as it is until the next step is `hungry`. */
  feed(input: Region): void {
    this.#input = input;
    this.#engine.feed(input);
  }

  /**
   * All input was fed.
   *
   * @throws MalformedDataError
   */
  end(): undefined {
    if (this.#state === 'member') throw new MalformedDataError(ENDS_EARLY);
    return undefined;
  }

  /**
   * Decodes into the front of `output`; returns how many bytes, perhaps none.
   *
   * @throws MalformedDataError
   */
  step(output: Region): number {
    return this.#isInMember() ? this.#note(this.#engine.runNow(output), output) : 0;
  }

  /** The same in Node's thread pool. */
  async stepInPool(output: Region): Promise<number> {
    return this.#isInMember() ? this.#note(await this.#engine.run(output), output) : 0;
  }

  /** Checks what follows a member: false for padding, which is skipped. */
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
    this.#engine.feed(NOTHING);
    return false;
  }

  #note({ produced, ended }: DecoderRun, output: Region): number {
    this.#outputWasFull = produced === output.bytes.length && !ended;
    if (ended) this.#state = 'between';
    return produced;
  }
}
