import { DestinationError } from '../errors.ts';
import type { BlobResponse, Layer } from '../oci/image.ts';
import type { BlobBuffer } from './buffer.ts';
import type { Kept } from './claim.ts';
import { type StarvationMeter, judge, outrunsReader, type Pace } from './pace.ts';
import type { Scheduler } from './scheduler.ts';
import { Pieces, SplitDownload } from './split.ts';
import { Body, BrokenTransferError, RetryBudget, type RetryOptions, WrongBytesError } from './transfer.ts';
import { BlobHash } from './verification.ts';

/** Bytes read back at once, for the digest. */
const READ_BACK = 512 * 1024;
/** After this many further bytes, the contents of the file are noted again: a killed run loses at most these. */
const NOTE_EVERY = 4 * 2 ** 20;

export interface DownloadOptions extends RetryOptions {
  readonly scheduler: Scheduler;
  /** Of the blob, see `Scheduler`. */
  readonly rank: number;
  /** Of the layer that is being unpacked. */
  readonly starvation: StarvationMeter;
  /** Called with the number of received bytes whenever it has grown. */
  readonly progress: (received: number) => void;
  /** Notes the contents of the file, where it has or will have holes. */
  readonly note: (kept: Kept) => Promise<void>;
}

/** Brings one blob into its buffer: resumed, retried, checked, and over several connections where that is faster. */
export class Download {
  readonly #layer: Layer;
  readonly #buffer: BlobBuffer;
  readonly #options: DownloadOptions;
  readonly #budget: RetryBudget;
  readonly #hash: BlobHash;
  #size: number | undefined;
  #etag: string | undefined;
  #complete = false;
  /** The server has sent ranges as requested so far. */
  #splits = true;
  /** The received and the missing pieces; set when there are bytes beyond the front. */
  #pieces: Pieces | undefined;
  /** The file has, or had, holes. */
  #sparse = false;
  #unnoted = 0;
  #noting = Promise.resolve();
  #hashing: Promise<void> | undefined;
  #readBack: Uint8Array | undefined;

  constructor(layer: Layer, buffer: BlobBuffer, options: DownloadOptions) {
    this.#layer = layer;
    this.#buffer = buffer;
    this.#options = options;
    this.#budget = new RetryBudget(options);
    this.#hash = new BlobHash(layer.checksum);
    this.#size = layer.size;
  }

  /**
   * Resolves when the blob is complete and its digest right; `kept` is in the buffer's file already.
   *
   * @throws WrongBytesError, NetworkError, and errors of opening the blob; then the contents of the file are noted
   */
  async run(kept: Kept): Promise<void> {
    try {
      await this.#resume(kept);
      while (!this.#complete) await this.#receive();
    } catch (error) {
      await this.#note().catch(() => undefined);
      throw error;
    }
    const found = this.#hash.mismatch();
    if (found === undefined) return;
    throw new WrongBytesError(`it has digest ${found} but must have ${this.#layer.checksum?.digest}`);
  }

  async #resume({ ranges, size = ranges.at(-1)?.end ?? 0 }: Kept): Promise<void> {
    if (ranges.length === 0) return;
    const pieces = new Pieces(ranges, this.#layer.size ?? size);
    if (ranges.at(-1)!.end > pieces.front) this.#pieces = pieces;
    this.#buffer.advance(pieces.front);
    this.#options.progress(pieces.received);
    await this.#hashFront().catch((error: unknown) => {
      if (!(error instanceof DestinationError)) throw error;
      throw new WrongBytesError(`cannot read what an earlier run downloaded of it: ${error.message}`);
    });
    this.#complete = pieces.front === this.#size;
  }

  async #receive(): Promise<void> {
    try {
      await (this.#pieces && this.#splits ? this.#split(this.#pieces) : this.#rest());
    } catch (error) {
      this.#settle();
      await this.#budget.again(error, this.#received);
    }
  }

  /** How many bytes are there. */
  get #received(): number {
    return this.#splits && this.#pieces ? this.#pieces.received : this.#buffer.received;
  }

  #settle(): void {
    this.#options.scheduler.settle(this.#options.rank);
  }

  /** Receives the rest in order, until more connections are worth it. */
  async #rest(): Promise<void> {
    const buffer = this.#buffer;
    const range = { start: buffer.received, etag: this.#etag };
    const response = await this.#layer.open(range, this.#options.signal);
    const body = new Body(response);
    try {
      this.#check(response);
      // A server without ranges sends again what is here already.
      while (body.at < buffer.received && (await body.next(buffer.received - body.at)));
      for (let chunk = await body.next(); chunk; chunk = await body.next()) {
        await this.#append(chunk, body.pace);
        if (!this.#shouldSplit(response.ranges, body.pace)) continue;
        await this.#split(new Pieces([{ start: 0, end: buffer.received }], this.#size!), body);
        return;
      }
    } finally {
      await body.close();
    }
    if (this.#size !== undefined && buffer.received < this.#size) {
      throw new BrokenTransferError(`the connection ended after ${buffer.received} of ${this.#size} bytes`);
    }
    this.#complete = true;
  }

  /** @throws WrongBytesError when the answer is about another blob than the bytes that are here */
  #check(response: BlobResponse): void {
    this.#size = sizeBy(response, this.#layer, this.#size);
    // With a digest, any content at that address must be the same bytes; without one, only the entity tag tells.
    const changed = this.#etag !== undefined && response.etag !== this.#etag && !this.#layer.checksum;
    this.#etag = response.etag;
    if (changed && this.#buffer.received > 0) {
      throw new WrongBytesError('it changed on the server during the download');
    }
  }

  async #append(chunk: Uint8Array, pace: Pace): Promise<void> {
    if (this.#size !== undefined && this.#buffer.received + chunk.length > this.#size) {
      throw new WrongBytesError(`received more than its ${this.#size} bytes`);
    }
    this.#hash.update(chunk);
    await this.#buffer.append(chunk, () => outrunsReader(pace) && !this.#options.starvation.starving);
    await this.#arrived(chunk.length);
  }

  #shouldSplit(ranges: boolean, pace: Pace): boolean {
    const { scheduler, starvation } = this.#options;
    const possible = this.#size !== undefined && ranges && this.#splits && scheduler.connections > 1;
    // This layer is the one that is being unpacked, and it waits.
    const hungry = this.#buffer.isRead && starvation.starving;
    const verdict = possible ? judge(pace, this.#size! - this.#buffer.received, hungry) : 'alone';
    if (verdict !== 'unknown') this.#settle();
    return verdict === 'share';
  }

  async #split(pieces: Pieces, body?: Body): Promise<void> {
    this.#pieces = pieces;
    this.#size = pieces.size;
    this.#sparse = true;
    // Before a hole is made.
    await this.#note();
    const split = new SplitDownload(this.#layer, this.#buffer, pieces, {
      ...this.#options,
      etag: this.#etag,
      arrived: (bytes) => this.#arrived(bytes),
    });
    this.#splits = await split.run(body);
    await this.#hashing;
    await this.#hashFront();
    this.#complete = this.#buffer.received === pieces.size;
  }

  async #arrived(bytes: number): Promise<void> {
    this.#budget.received(bytes);
    this.#options.progress(this.#received);
    if (this.#hash.bytes < this.#buffer.received) this.#hashSoon();
    this.#unnoted += bytes;
    if (this.#unnoted >= NOTE_EVERY) await this.#note();
  }

  /** Notes the contents of the file, unless its length says them. */
  async #note(): Promise<void> {
    this.#unnoted = 0;
    if (!this.#sparse) return;
    this.#noting = this.#noting.then(() => {
      const { written } = this.#buffer;
      const behind = this.#pieces?.present.filter(({ end }) => end > written) ?? [];
      const ranges = behind.map(({ start, end }) => ({ start: Math.max(start, written), end }));
      return this.#options.note({ ranges: [{ start: 0, end: written }, ...ranges], size: this.#size });
    });
    await this.#noting;
  }

  #hashSoon(): void {
    this.#hashing ??= this.#hashFront().finally(() => {
      this.#hashing = undefined;
    });
    this.#hashing.catch((error: unknown) => this.#buffer.fail(error));
  }

  /** Reads back what went to the file without passing by here, up to the front. */
  async #hashFront(): Promise<void> {
    this.#readBack ??= new Uint8Array(READ_BACK);
    while (this.#hash.bytes < this.#buffer.received) {
      const wanted = this.#readBack.subarray(0, this.#buffer.received - this.#hash.bytes);
      const count = await this.#buffer.readAt(wanted, this.#hash.bytes);
      this.#hash.update(wanted.subarray(0, count));
    }
  }
}

/**
 * Size of the blob in bytes, as an answer says. A manifest is right about it; what a registry of version 1 says of it is not. `known`:
 * what was said so far.
 */
function sizeBy({ size }: BlobResponse, layer: Layer, known: number | undefined): number | undefined {
  if (size === undefined || known === undefined || size === known) return size ?? known;
  if (layer.size === undefined)
    throw new WrongBytesError(`the server had ${known} bytes of it, and now ${size}`);
  if (layer.digest === undefined) return size;
  throw new WrongBytesError(`the server has ${size} bytes of it, but the manifest says ${known}`);
}
