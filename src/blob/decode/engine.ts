import { type ByteReader, ENDS_EARLY, MalformedDataError, TRAILING_BYTES } from './byte-reader.ts';

/** Bytes outside V8's heap, so that a native function may use their address while JavaScript runs. */
export interface Region {
  readonly bytes: Uint8Array;
  readonly address: bigint;
}

/** What one run of a native decoder did. */
export interface DecoderRun {
  /** Bytes put into the output. */
  readonly produced: number;
  /** A gzip member or zstd frame ended, and everything of it is out. */
  readonly ended: boolean;
}

/** A native decoder: it works through its input one call at a time. */
export interface Engine {
  /** Sets the input; the last one must be used up. */
  feed(input: Region, length: number): void;
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
  /** What the first byte after a member means. */
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

/** Two buffers that alternate: while the decoder uses one, the other is filled. */
class Input {
  readonly #reader: ByteReader;
  readonly #regions: readonly [Region, Region];
  #turn: 0 | 1 = 0;
  #filling: Promise<number>;

  constructor(reader: ByteReader, regions: readonly [Region, Region]) {
    this.#reader = reader;
    this.#regions = regions;
    this.#filling = this.#fill();
  }

  async #fill(): Promise<number> {
    return this.#reader.read(this.#regions[this.#turn].bytes);
  }

  /** The next bytes; length 0 at the end. Those given before are no longer valid. */
  async next(): Promise<{ readonly region: Region; readonly length: number }> {
    const length = await this.#filling;
    const region = this.#regions[this.#turn];
    this.#turn = this.#turn === 0 ? 1 : 0;
    if (length > 0) {
      this.#filling = this.#fill();
      this.#filling.catch(() => undefined);
    }
    return { region, length };
  }
}

/**
 * Decodes `reader` through an engine: while the caller has one output buffer, the pool fills the other. A chunk is valid until
 * the next one is asked for.
 *
 * @throws MalformedDataError, and what the reader throws
 */
export async function* decodeByEngine(
  open: () => Engine,
  reader: ByteReader,
  allocate: (length: number) => Region,
): AsyncGenerator<Uint8Array, void, undefined> {
  const inputs = [allocate(INPUT), allocate(INPUT)] as const;
  const outputs = [allocate(OUTPUT), allocate(OUTPUT)] as const;
  const decoder = new PooledDecoder(open(), new Input(reader, inputs));
  try {
    let turn: 0 | 1 = 0;
    let running = decoder.advance(outputs[turn]);
    for (;;) {
      const produced = await running;
      if (produced === undefined) {
        // At the end nothing is under way that could still write to them; V8 would keep those of many layers for long.
        for (const region of [...outputs, ...inputs]) release(region);
        return;
      }
      const { bytes } = outputs[turn];
      turn = turn === 0 ? 1 : 0;
      running = decoder.advance(outputs[turn]);
      running.catch(() => undefined);
      if (produced > 0) yield bytes.subarray(0, produced);
    }
  } finally {
    await decoder.close();
  }
}

/** Frees a region's memory now. */
function release({ bytes }: Region): void {
  if (bytes.buffer instanceof ArrayBuffer) bytes.buffer.transfer(0);
}

class PooledDecoder {
  readonly #members: Members;
  readonly #engine: Engine;
  readonly #input: Input;
  #running: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(engine: Engine, input: Input) {
    this.#members = new Members(engine);
    this.#engine = engine;
    this.#input = input;
  }

  /** Bytes produced, perhaps none yet; undefined at the end. */
  async advance(output: Region): Promise<number | undefined> {
    if (this.#members.hungry) {
      const { region, length } = await this.#input.next();
      if (this.#closed) return undefined;
      if (length === 0) return this.#members.end();
      this.#members.feed(region, length);
    }
    if (!this.#members.prepare()) return 0;
    const running = this.#engine.run(output);
    this.#running = running.catch(() => undefined);
    return this.#members.note(await running, output);
  }

  /** Waits for the native call at work, if any, then frees the decoder; input still on its way is dropped. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#running;
    this.#engine.close();
  }
}

/** Where a decoder is in a sequence of members, and what may follow. */
class Members {
  readonly #engine: Engine;
  #input: { readonly region: Region; readonly length: number } | undefined;
  #state: 'member' | 'between' | 'padding' = 'member';
  #outputWasFull = false;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** The next step needs more input. */
  get hungry(): boolean {
    return this.#engine.left() === 0 && !this.#outputWasFull;
  }

  feed(region: Region, length: number): void {
    this.#input = { region, length };
    this.#engine.feed(region, length);
  }

  /** All input was fed. */
  end(): undefined {
    if (this.#state === 'member') throw new MalformedDataError(ENDS_EARLY);
    return undefined;
  }

  /** Checks the byte after a member. False for padding, which is skipped: then no step is run. */
  prepare(): boolean {
    if (this.#state !== 'member') this.#follow();
    if (this.#state !== 'padding') return true;
    this.#skipPadding();
    return false;
  }

  /** Returns how many bytes a run put into `output`. */
  note({ produced, ended }: DecoderRun, output: Region): number {
    this.#outputWasFull = produced === output.bytes.length && !ended;
    if (ended) this.#state = 'between';
    return produced;
  }

  #follow(): void {
    const { region, length } = this.#input!;
    const meaning =
      this.#state === 'padding' ? 'padding' : this.#engine.after(region.bytes[length - this.#engine.left()]!);
    if (meaning === 'garbage') throw new MalformedDataError(TRAILING_BYTES);
    if (meaning === 'member') this.#engine.restart();
    this.#state = meaning;
  }

  #skipPadding(): void {
    const { region, length } = this.#input!;
    const rest = region.bytes.subarray(length - this.#engine.left(), length);
    if (rest.some((byte) => byte !== 0)) throw new MalformedDataError(TRAILING_BYTES);
    this.#engine.feed(region, 0);
  }
}

const NOTHING: Region = { bytes: new Uint8Array(0), address: 0n };

/** One blob through an engine, step by step, in the calling thread. The engine serves one after another. */
export class StepDecoder {
  readonly #members: Members;
  readonly #engine: Engine;

  /** @param compareChecksums see Engine */
  constructor(engine: Engine, compareChecksums: boolean) {
    engine.feed(NOTHING, 0);
    engine.restart();
    engine.compareChecksums(compareChecksums);
    this.#engine = engine;
    this.#members = new Members(engine);
  }

  /** The next step needs more input. */
  get hungry(): boolean {
    return this.#members.hungry;
  }

  /** Sets the input; the last one must be used up, and this one stay as it is until the next step is `hungry`. */
  feed(region: Region): void {
    this.#members.feed(region, region.bytes.length);
  }

  /**
   * All input was fed.
   *
   * @throws MalformedDataError
   */
  end(): void {
    this.#members.end();
  }

  /**
   * Decodes into the front of `output`; returns how many bytes, perhaps none.
   *
   * @throws MalformedDataError
   */
  step(output: Region): number {
    return this.#members.prepare() ? this.#members.note(this.#engine.runNow(output), output) : 0;
  }
}
