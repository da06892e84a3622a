import { DestinationError, NetworkError } from '../errors.ts';
import type { BlobResponse, Layer } from '../oci/image.ts';
import type { BlobBuffer } from './buffer.ts';
import type { Kept } from './claim.ts';
import { type StarvationMeter, judge, PaceMeter, outrunsReader } from './pace.ts';
import type { SchedulerPlace } from './scheduler.ts';
import { Pieces, SplitDownload } from './split.ts';
import { abandon, BrokenTransferError, type RetryBudget, TimedBody, WrongBytesError } from './transfer.ts';
import { BlobHash } from './verification.ts';

/** At once, for the digest, in bytes. */
const READ_BACK = 512 * 1024;
/** So many bytes more, and it is noted again what the file has: what a killed run loses at most. */
const NOTE_EVERY = 4 * 2 ** 20;

export interface DownloadOptions {
  readonly budget: RetryBudget;
  readonly place: SchedulerPlace;
  /** Of the layer that is being unpacked. */
  readonly starvation: StarvationMeter;
  /** Called with the number of bytes that are here, whenever there are more. */
  readonly progress: (received: number) => void;
  /** Notes what the file has, where it has holes or will have. */
  readonly note: (kept: Kept) => Promise<void>;
}

/** Brings one blob into its buffer: resumed, retried, checked, and over several connections where that is faster. */
export class Download {
  readonly #layer: Layer;
  readonly #buffer: BlobBuffer;
  readonly #options: DownloadOptions;
  readonly #hash: BlobHash;
  #size: number | undefined;
  #etag: string | undefined;
  #complete = false;
  #splits = true;
  /** What is there beyond the front, and what is not; from when there is something. */
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
    this.#hash = new BlobHash(layer.checksum);
    this.#size = layer.size;
  }

  /**
   * Resolves when the blob is whole and its digest right; `kept` is in the buffer's file already.
   *
   * @throws WrongBytesError, NetworkError, and what opening the blob throws; then it is noted what the file has
   */
  async run(kept: Kept): Promise<void> {
    try {
      await this.#resume(kept);
      while (!this.#complete) await this.#receive();
    } catch (error) {
      await this.#note().catch(() => undefined);
      throw error;
    }
    this.#verify();
  }

  async #resume({ ranges, size = ranges.at(-1)?.end ?? 0 }: Kept): Promise<void> {
    if (ranges.length === 0) return;
    const pieces = new Pieces(ranges, this.#layer.size ?? size);
    if (ranges.at(-1)!.end > pieces.front) this.#pieces = pieces;
    this.#buffer.advance(pieces.front);
    this.#options.progress(pieces.received);
    await this.#hashTo(pieces.front).catch((error: unknown) => {
      if (!(error instanceof DestinationError)) throw error;
      throw new WrongBytesError(`cannot read what an earlier run downloaded of it: ${error.message}`);
    });
    this.#complete = pieces.front === this.#size;
  }

  #verify(): void {
    const found = this.#hash.mismatch();
    if (found === undefined) return;
    throw new WrongBytesError(`it has digest ${found} but must have ${this.#layer.checksum?.digest}`);
  }

  async #receive(): Promise<void> {
    try {
      if (this.#pieces && this.#splits) return await this.#split(this.#pieces);
      const response = await this.#open();
      this.#size = sizeBy(response, this.#layer, this.#size);
      await this.#take(response);
    } catch (error) {
      this.#options.place.settle();
      await this.#options.budget.again(error, this.#received);
    }
    return undefined;
  }

  /** How many bytes are there. */
  get #received(): number {
    return this.#splits && this.#pieces ? this.#pieces.received : this.#buffer.received;
  }

  /** Asks for the rest; where the server does not do that, for the whole again. */
  async #open(): Promise<BlobResponse> {
    const { signal } = this.#options.budget;
    const start = this.#buffer.received;
    const answer = await this.#layer.open({ start, etag: this.#etag }, signal).catch((error: unknown) => {
      signal.throwIfAborted();
      if (start === 0 || !(error instanceof NetworkError)) throw error;
      return undefined;
    });
    const response = answer ?? (await this.#layer.open({ start: 0 }, signal));
    if (response.start > start) {
      await abandon(response);
      throw new BrokenTransferError('the server sent another range than requested');
    }
    // With a digest, any content at that address must be the same bytes; without one, only the tag says so.
    const changed = this.#etag !== undefined && response.etag !== this.#etag && !this.#layer.checksum;
    this.#etag = response.etag;
    if (changed && start > 0) {
      await abandon(response);
      throw new WrongBytesError('it changed on the server during the download');
    }
    return response;
  }

  async #take(response: BlobResponse): Promise<void> {
    const buffer = this.#buffer;
    const pace = new PaceMeter();
    let skip = buffer.received - response.start;
    const patient = () => outrunsReader(pace) && !this.#options.starvation.starving;
    const body = new TimedBody(response.body, pace);
    try {
      for await (const whole of body) {
        const chunk = whole.subarray(Math.min(skip, whole.length));
        skip -= whole.length - chunk.length;
        if (chunk.length === 0) continue;
        if (this.#size !== undefined && buffer.received + chunk.length > this.#size) {
          throw new WrongBytesError(`received more than its ${this.#size} bytes`);
        }
        this.#hash.update(chunk);
        await buffer.append(chunk, patient);
        await this.#arrived(chunk.length);
        if (this.#shouldSplit(response, pace)) {
          const front = { start: 0, end: buffer.received };
          return await this.#split(new Pieces([front], this.#size!), body);
        }
      }
    } finally {
      await body.return();
    }
    if (this.#size !== undefined && buffer.received < this.#size) {
      throw new BrokenTransferError(`the connection ended after ${buffer.received} of ${this.#size} bytes`);
    }
    this.#complete = true;
    return undefined;
  }

  #shouldSplit(response: BlobResponse, pace: PaceMeter): boolean {
    const possible =
      this.#size !== undefined && response.ranges && this.#splits && this.#options.place.connections > 1;
    const verdict = possible ? judge(pace, this.#size! - this.#buffer.received, this.#hungry) : 'alone';
    if (verdict !== 'unknown') this.#options.place.settle();
    return verdict === 'share';
  }

  /** The layer that is being unpacked is this one, and waits. */
  get #hungry(): boolean {
    return this.#buffer.isRead && this.#options.starvation.starving;
  }

  async #split(pieces: Pieces, body?: AsyncIterator<Uint8Array>): Promise<void> {
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
    await this.#hashTo(this.#buffer.received);
    this.#complete = this.#buffer.received === pieces.size;
  }

  async #arrived(bytes: number): Promise<void> {
    this.#options.progress(this.#received);
    if (this.#hash.bytes < this.#buffer.received) this.#hashSoon();
    this.#unnoted += bytes;
    if (this.#unnoted >= NOTE_EVERY) await this.#note();
  }

  /** Notes what the file has, unless its length says that. */
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
    this.#hashing ??= this.#hashFront();
    this.#hashing.catch((error: unknown) => this.#buffer.fail(error));
  }

  async #hashFront(): Promise<void> {
    while (this.#hash.bytes < this.#buffer.received) await this.#hashTo(this.#buffer.received);
    this.#hashing = undefined;
  }

  /** Reads back what went to the file without passing by here. */
  async #hashTo(end: number): Promise<void> {
    this.#readBack ??= new Uint8Array(READ_BACK);
    while (this.#hash.bytes < end) {
      const wanted = this.#readBack.subarray(0, end - this.#hash.bytes);
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
