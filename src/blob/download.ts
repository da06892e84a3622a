import { createHash, type Hash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { DestinationError, NetworkError } from '../errors.ts';
import { algorithmOf, type Digest } from '../oci/digest.ts';
import type { BlobResponse, Checksum, RemoteLayer } from '../oci/image.ts';
import type { BlobBuffer } from './buffer.ts';
import type { PartialContents } from './claim.ts';
import { type Piece, Pieces } from './pieces.ts';
import { judgePace, type Pace, type Scheduler, type StarvationMeter } from './scheduler.ts';
import { Body, BrokenTransferError, CorruptBlobError, RetryBudget, type RetryOptions } from './transfer.ts';

/** Bytes read back at once, for the digest. */
const READ_BACK = 512 * 1024;
/** After this many further bytes, the contents of the file are noted again: a killed run loses at most these. */
const NOTE_EVERY = 4 * 2 ** 20;
/** After this many failures no further connection is tried: each may take the piece that the first one is about to receive. */
const MAX_FAILURES = 8;

export interface DownloadOptions extends RetryOptions {
  readonly scheduler: Scheduler;
  /** Of the blob, see `Scheduler`. */
  readonly rank: number;
  /** Of the layer that is being unpacked. */
  readonly starvation: StarvationMeter;
  /** Called with the number of received bytes whenever it has grown. */
  readonly progress: (received: number) => void;
  /** Notes the contents of the file, where it has or will have holes. */
  readonly note: (kept: PartialContents) => Promise<void>;
}

/**
 * Brings one blob into its buffer: resumed, retried and checked. One connection appends bytes in order, until further connections are worth it:
 * then each receives pieces, front first, and writes them to their places in the file.
 */
export class Download {
  readonly #layer: RemoteLayer;
  readonly #buffer: BlobBuffer;
  readonly #options: DownloadOptions;
  readonly #budget: RetryBudget;
  readonly #hash: BlobHash;
  #size: number | undefined;
  #etag: string | undefined;
  #complete = false;
  /** The received and the missing pieces; set when the file has, or will have, holes. */
  #pieces: Pieces | undefined;
  /** The server did not send a range as requested: one connection receives the rest. */
  #refused = false;
  /** The connections beyond the first. */
  readonly #helpers = new Set<Promise<void>>();
  /** Helpers that failed since one worked. */
  #failures = 0;
  /** A helper failed, and no piece was completed since: others would fail too. */
  #failing = false;
  /** Ends all connections for good: only for errors after which `#receive` does not retry. */
  readonly #abort = new AbortController();
  readonly #signal: AbortSignal;
  #unnoted = 0;
  #noting = Promise.resolve();
  #readBack: Uint8Array | undefined;

  constructor(layer: RemoteLayer, buffer: BlobBuffer, options: DownloadOptions) {
    this.#layer = layer;
    this.#buffer = buffer;
    this.#options = options;
    this.#budget = new RetryBudget(options);
    this.#hash = new BlobHash(layer.checksum);
    this.#size = layer.size;
    this.#signal = AbortSignal.any([options.signal, this.#abort.signal]);
  }

  /**
   * Resolves when the blob is complete and its digest right; `kept` is in the buffer's file already.
   *
   * @throws CorruptBlobError, NetworkError, and errors of opening the blob; then the contents of the file are noted
   */
  async run(kept: PartialContents): Promise<void> {
    try {
      await this.#resume(kept);
      while (!this.#complete) await this.#receive();
    } catch (error) {
      await this.#note().catch(() => undefined);
      throw error;
    }
    const found = this.#hash.mismatch();
    if (found === undefined) return;
    throw this.#wrong(`it has digest ${found} but must have ${this.#layer.checksum?.digest}`);
  }

  async #resume({ ranges, size = ranges.at(-1)?.end ?? 0 }: PartialContents): Promise<void> {
    if (ranges.length === 0) return;
    const pieces = new Pieces(ranges, this.#layer.size ?? size);
    if (ranges.at(-1)!.end > pieces.front) this.#pieces = pieces;
    await this.#buffer.openFile();
    this.#buffer.advance(pieces.front);
    this.#options.progress(pieces.received);
    await this.#hashFront().catch((error: unknown) => {
      if (!(error instanceof DestinationError)) throw error;
      throw this.#wrong(`cannot read what an earlier run downloaded of it: ${error.message}`);
    });
    this.#complete = pieces.front === this.#size;
  }

  async #receive(): Promise<void> {
    try {
      await (this.#pieces ? this.#receivePieces(this.#pieces) : this.#receiveRest());
    } catch (error) {
      this.#stopMeasuring();
      // Retries only a BrokenTransferError, which only `#receiveRest` throws. `#connection` has its own retries and then throws a
      // NetworkError. So `#abort`, which cannot be undone, is never in effect when this retries.
      await this.#budget.again(error, this.#received);
    }
  }

  /** How many bytes were received. */
  get #received(): number {
    return (this.#pieces ?? this.#buffer).received;
  }

  #stopMeasuring(): void {
    this.#options.scheduler.stopMeasuring(this.#options.rank);
  }

  /** Receives the rest in order, until more connections are worth it. */
  async #receiveRest(): Promise<void> {
    const buffer = this.#buffer;
    const response = await this.#layer.open({ start: buffer.received, etag: this.#etag }, this.#signal);
    const body = new Body(response);
    try {
      this.#check(response);
      // A server without ranges sends again what is here already.
      while (body.at < buffer.received && (await body.next(buffer.received - body.at)));
      for (let chunk = await body.next(); chunk; chunk = await body.next()) {
        await this.#append(chunk);
        if (!this.#shouldSplit(response.ranges, body.pace)) continue;
        const pieces = new Pieces([{ start: 0, end: buffer.received }], this.#size!);
        return await this.#receivePieces(pieces, body);
      }
    } finally {
      await body.close();
    }
    if (this.#size !== undefined && buffer.received < this.#size) {
      throw new BrokenTransferError(`the connection ended after ${buffer.received} of ${this.#size} bytes`);
    }
    this.#complete = true;
  }

  /** @throws CorruptBlobError when the answer is about another blob than the bytes that are here */
  #check(response: BlobResponse): void {
    this.#size = this.#sizeBy(response);
    // With a digest, any content at that address must be the same bytes; without one, only the entity tag tells.
    const changed = this.#etag !== undefined && response.etag !== this.#etag && !this.#layer.checksum;
    this.#etag = response.etag;
    if (changed && this.#buffer.received > 0) {
      throw this.#wrong('it changed on the server during the download');
    }
  }

  /** Size of the blob in bytes. The manifest's size is correct; a size from a registry v1 may be wrong. */
  #sizeBy({ size }: BlobResponse): number | undefined {
    const known = this.#size;
    if (size === undefined || known === undefined || size === known) return size ?? known;
    if (this.#layer.size === undefined)
      throw this.#wrong(`the server had ${known} bytes of it, and now ${size}`);
    if (this.#layer.digest === undefined) return size;
    throw this.#wrong(`the server has ${size} bytes of it, but the manifest says ${known}`);
  }

  #wrong(reason: string): CorruptBlobError {
    return new CorruptBlobError(this.#options.name, reason);
  }

  async #append(chunk: Uint8Array): Promise<void> {
    if (this.#size !== undefined && this.#buffer.received + chunk.length > this.#size) {
      throw this.#wrong(`received more than its ${this.#size} bytes`);
    }
    this.#hash.update(chunk);
    await this.#buffer.append(chunk);
    await this.#arrived(chunk.length);
  }

  #shouldSplit(ranges: boolean, pace: Pace): boolean {
    const { scheduler, starvation } = this.#options;
    const possible = this.#size !== undefined && ranges && !this.#refused && scheduler.connections > 1;
    // This layer is the one that is being unpacked, and it waits.
    const hungry = this.#buffer.isRead && starvation.starving;
    const verdict = possible ? judgePace(pace, this.#size! - this.#buffer.received, hungry) : 'alone';
    if (verdict !== 'unknown') this.#stopMeasuring();
    return verdict === 'share';
  }

  /**
   * Receives the missing pieces over several connections. The first one continues with `first`, if given, which delivers what follows the front.
   * If the server does not send a range as requested, the buffer ends at its front.
   *
   * @throws the error of the first connection, or of a helper unless that is a NetworkError
   */
  async #receivePieces(pieces: Pieces, first?: Body): Promise<void> {
    const { scheduler, rank } = this.#options;
    this.#pieces = pieces;
    this.#size = pieces.size;
    // Before a hole is made.
    await this.#note();
    const helps = () => !this.#refused && !this.#failing && this.#failures < MAX_FAILURES;
    const unshare = scheduler.share({
      rank,
      wanting: () => pieces.waiting && helps() && !this.#signal.aborted,
      work: () => this.#help(pieces),
    });
    try {
      let body = first;
      do {
        await this.#connection(pieces, body);
        await this.#helpersEnd();
        body = undefined;
        // Helpers may have given up pieces.
      } while (pieces.waiting && !this.#refused);
    } catch (error) {
      this.#abort.abort(error);
      await Promise.all(this.#helpers);
      throw error;
    } finally {
      unshare();
    }
    await this.#hashFront();
    if (this.#refused) {
      await this.#note();
      this.#pieces = undefined;
    }
    this.#complete = this.#buffer.received === pieces.size;
  }

  /** A connection beyond the first, until an earlier blob can use it. Its errors end the download unless they are the network's. */
  async #help(pieces: Pieces): Promise<void> {
    const { scheduler, rank } = this.#options;
    const receive = async () => {
      try {
        await this.#connection(pieces, undefined, () => scheduler.wantedBefore(rank));
        this.#failures = 0;
      } catch (error) {
        this.#failing = true;
        this.#failures += 1;
        if (!(error instanceof NetworkError)) this.#abort.abort(error);
      }
    };
    const helper = receive();
    this.#helpers.add(helper);
    await helper;
    this.#helpers.delete(helper);
  }

  /** @throws the error of a helper */
  async #helpersEnd(): Promise<void> {
    // While some end, others may start.
    while (this.#helpers.size > 0) await Promise.all(this.#helpers);
    this.#signal.throwIfAborted();
  }

  /** One connection: receives piece after piece until none is left, or `enough`. */
  async #connection(pieces: Pieces, first?: Body, enough = () => false): Promise<void> {
    const { scheduler } = this.#options;
    const budget = new RetryBudget(this.#options);
    let body = first;
    while (!this.#refused && !enough()) {
      const piece = pieces.take(scheduler.connections);
      if (!piece) break;
      // Not before this connection has its piece: the first one continues with the bytes that follow.
      scheduler.assign();
      try {
        body = await this.#receivePiece(piece, pieces, body, budget);
      } catch (error) {
        body = undefined;
        this.#signal.throwIfAborted();
        scheduler.assign();
        await budget.again(error, piece.at);
      }
    }
    await body?.close();
  }

  /** Receives a piece, from `open` where that continues there; returns the body. If it ends early, another connection takes the rest. */
  async #receivePiece(
    piece: Piece,
    pieces: Pieces,
    open: Body | undefined,
    budget: RetryBudget,
  ): Promise<Body | undefined> {
    let body = open;
    try {
      if (open?.at !== piece.at || open.at >= open.end) {
        await open?.close();
        body = await this.#openAt(piece);
      }
      if (!body) return undefined;
      while (piece.at < piece.end && !this.#refused) {
        const chunk = await body.next(piece.end - piece.at);
        this.#signal.throwIfAborted();
        if (!chunk) throw new BrokenTransferError('the connection ended before its range was complete');
        await this.#buffer.writeAt(chunk, piece.at);
        piece.at += chunk.length;
        if (pieces.front > this.#buffer.received) this.#buffer.advance(pieces.front);
        await this.#arrived(chunk.length);
        budget.received(chunk.length);
      }
      this.#failing = false;
      return body;
    } catch (error) {
      await body?.close();
      throw error;
    } finally {
      pieces.give(piece);
    }
  }

  /** Undefined where the server does not send the range, which is noted. */
  async #openAt({ at: start, end }: Piece): Promise<Body | undefined> {
    const response = await this.#layer.open({ start, end, etag: this.#etag }, this.#signal).catch(() => {
      this.#signal.throwIfAborted();
      // The server may only refuse several connections at once; if not, the one connection that is left gets the error.
      return undefined;
    });
    const body = response && new Body(response, end);
    if (body?.at === start) return body;
    this.#refused = true;
    await body?.close();
    return undefined;
  }

  async #arrived(bytes: number): Promise<void> {
    this.#budget.received(bytes);
    this.#options.progress(this.#received);
    this.#hashMore();
    this.#unnoted += bytes;
    if (this.#unnoted >= NOTE_EVERY) await this.#note();
  }

  /** Notes the contents of the file, unless its length says them. */
  async #note(): Promise<void> {
    const pieces = this.#pieces;
    this.#unnoted = 0;
    if (!pieces) return;
    this.#noting = this.#noting.then(() => this.#options.note({ ranges: pieces.present, size: this.#size }));
    await this.#noting;
  }

  /** Reads back bytes that were written to the file but not hashed, up to the front: a part of them. Returns whether there are more. */
  #hashMore(): boolean {
    const missing = this.#buffer.received - this.#hash.bytes;
    if (missing <= 0) return false;
    this.#readBack ??= new Uint8Array(READ_BACK);
    const count = this.#buffer.readBack(this.#readBack.subarray(0, missing), this.#hash.bytes);
    this.#hash.update(this.#readBack.subarray(0, count));
    return count < missing;
  }

  async #hashFront(): Promise<void> {
    while (this.#hashMore()) {
      await setImmediate();
      this.#signal.throwIfAborted();
    }
  }
}

/** The running digest of a blob; it starts with the prefix of its checksum (registry v1). */
export class BlobHash {
  readonly #checksum: Checksum | undefined;
  readonly #hash: Hash | undefined;
  #found: Digest | undefined;
  /** Number of bytes of the blob so far. */
  bytes = 0;

  constructor(checksum: Checksum | undefined) {
    this.#checksum = checksum;
    if (!checksum) return;
    this.#hash = createHash(algorithmOf(checksum.digest));
    if (checksum.prefix) this.#hash.update(checksum.prefix);
  }

  update(chunk: Uint8Array): void {
    this.bytes += chunk.length;
    this.#hash?.update(chunk);
  }

  /** The wrong digest that was computed; undefined when it is right, or without a checksum. No `update` after it. */
  mismatch(): Digest | undefined {
    if (!this.#checksum || !this.#hash) return undefined;
    const { digest } = this.#checksum;
    this.#found ??= `${algorithmOf(digest)}:${this.#hash.digest('hex')}` as Digest;
    return this.#found === digest ? undefined : this.#found;
  }
}
