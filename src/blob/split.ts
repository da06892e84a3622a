import { NetworkError } from '../errors.ts';
import type { Layer } from '../oci/image.ts';
import { type BlobBuffer, writeFully } from './buffer.ts';
import type { ByteRange } from './claim.ts';
import type { Scheduler } from './scheduler.ts';
import { diskError } from './store-files.ts';
import { Body, BrokenTransferError, RetryBudget, type RetryOptions } from './transfer.ts';

/** After this many failures no further connection is tried: each may take the piece that the first one is about to receive. */
const MAX_FAILURES = 8;

export interface SplitOptions extends RetryOptions {
  readonly scheduler: Scheduler;
  /** Of the blob, see `Scheduler`. */
  readonly rank: number;
  readonly etag: string | undefined;
  /** Called with the number of further bytes in the file, after the front has moved on. */
  readonly arrived: (bytes: number) => Promise<void>;
}

/** Downloads the missing pieces of one blob over several connections, front first, each to its place in the file. */
export class SplitDownload {
  readonly #layer: Layer;
  readonly #buffer: BlobBuffer;
  readonly #options: SplitOptions;
  readonly #pieces: Pieces;
  /** The connections beyond the first. */
  readonly #helpers = new Set<Promise<void>>();
  readonly #abort = new AbortController();
  readonly #signal: AbortSignal;
  /** The server did not send a range as requested. */
  #refused = false;
  /** Helpers that failed since one worked. */
  #failures = 0;
  /** A helper failed, and no piece was completed since: others would fail too. */
  #failing = false;

  constructor(layer: Layer, buffer: BlobBuffer, pieces: Pieces, options: SplitOptions) {
    this.#layer = layer;
    this.#buffer = buffer;
    this.#options = options;
    this.#pieces = pieces;
    this.#signal = AbortSignal.any([options.signal, this.#abort.signal]);
  }

  /**
   * Continues with `first`, if given: it delivers what follows the front. Resolves to true when the blob is complete, to false when the
   * server does not send the ranges that are requested: then the buffer ends at its front.
   *
   * @throws the error of the first connection, or of a helper unless that is a NetworkError
   */
  async run(first: Body | undefined): Promise<boolean> {
    await this.#buffer.toFile();
    // It may be waiting for bytes: an error of a helper ends it too.
    this.#abort.signal.addEventListener('abort', () => void first?.close());
    const { scheduler, rank } = this.#options;
    const unshare = scheduler.share({
      rank,
      wanting: () => this.#pieces.waiting && this.#helpersWork && !this.#signal.aborted,
      work: () => this.#help(),
    });
    try {
      await this.#connection(first);
      await this.#helpersEnd();
      // Helpers may have given up pieces.
      while (this.#pieces.waiting && !this.#refused) {
        await this.#connection();
        await this.#helpersEnd();
      }
    } catch (error) {
      this.#abort.abort(error);
      await Promise.all(this.#helpers);
      throw error;
    } finally {
      unshare();
    }
    return !this.#refused;
  }

  get #helpersWork(): boolean {
    return !this.#refused && !this.#failing && this.#failures < MAX_FAILURES;
  }

  async #help(): Promise<void> {
    const helper = this.#helper();
    this.#helpers.add(helper);
    await helper;
    this.#helpers.delete(helper);
  }

  async #helper(): Promise<void> {
    const { scheduler, rank } = this.#options;
    try {
      await this.#connection(undefined, () => scheduler.wantedBefore(rank));
      this.#failures = 0;
    } catch (error) {
      this.#failing = true;
      this.#failures += 1;
      if (!(error instanceof NetworkError)) this.#abort.abort(error);
    }
  }

  /** @throws the error of a helper */
  async #helpersEnd(): Promise<void> {
    // While some end, others may start.
    while (this.#helpers.size > 0) await Promise.all(this.#helpers);
    this.#signal.throwIfAborted();
  }

  /** One connection: receives piece after piece until none is left, or `enough`. */
  async #connection(first?: Body, enough = () => false): Promise<void> {
    const { scheduler } = this.#options;
    const budget = new RetryBudget(this.#options);
    let body = first;
    while (!this.#refused && !enough()) {
      const piece = this.#pieces.take(scheduler.connections);
      if (!piece) break;
      // Not before this connection has its piece: the first one continues with the bytes that follow.
      scheduler.assign();
      try {
        body = await this.#receive(piece, body, budget);
      } catch (error) {
        body = undefined;
        this.#signal.throwIfAborted();
        scheduler.assign();
        await budget.again(error, piece.at);
      }
    }
    await body?.close();
  }

  /** Receives a piece, from `open` where that continues there; returns the body. What the piece lacks in the end, another connection takes. */
  async #receive(piece: Piece, open: Body | undefined, budget: RetryBudget): Promise<Body | undefined> {
    try {
      const body = await this.#bodyFor(piece, open);
      if (body) await this.#fill(piece, body, budget);
      this.#failing = false;
      return body;
    } finally {
      this.#pieces.give(piece);
    }
  }

  async #bodyFor(piece: Piece, open: Body | undefined): Promise<Body | undefined> {
    if (open?.at === piece.at && open.at < open.end) return open;
    await open?.close();
    return this.#open(piece);
  }

  async #open({ at: start, end }: Piece): Promise<Body | undefined> {
    const response = await this.#layer
      .open({ start, end, etag: this.#options.etag }, this.#signal)
      .catch(() => {
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

  async #fill(piece: Piece, body: Body, budget: RetryBudget): Promise<void> {
    try {
      while (piece.at < piece.end && !this.#refused) {
        const chunk = await body.next(piece.end - piece.at);
        this.#signal.throwIfAborted();
        if (!chunk) throw new BrokenTransferError('the connection ended before its range was complete');
        await this.#write(chunk, piece);
        budget.received(chunk.length);
      }
    } catch (error) {
      await body.close();
      throw error;
    }
  }

  async #write(chunk: Uint8Array, piece: Piece): Promise<void> {
    const buffer = this.#buffer;
    await writeFully(await buffer.file(), [chunk], piece.at).catch((error: unknown) => {
      throw diskError(error, buffer.where);
    });
    piece.at += chunk.length;
    const { front } = this.#pieces;
    if (front > buffer.received) buffer.advance(front);
    await this.#options.arrived(chunk.length);
  }
}

/** A range of a blob that one connection receives: `at` is its next byte, `end` is exclusive. */
export interface Piece {
  at: number;
  readonly end: number;
}

/** In bytes: small enough for a steady front, large enough to make round trips negligible. */
const LARGEST = 16 * 2 ** 20;
const SMALLEST = 2 * 2 ** 20;

/** The missing ranges of a blob, handed out front first to several connections. */
export class Pieces {
  readonly size: number;
  /** Missing ranges without a connection, in order. A range that a connection gave up goes to the next one unchanged. */
  readonly #free: (Piece & { readonly givenUp: boolean })[];
  readonly #open = new Set<Piece>();

  /** @param present received ranges, in order; the rest of `size` bytes is missing */
  constructor(present: readonly ByteRange[], size: number) {
    this.size = size;
    this.#free = without(present, size).map(({ start, end }) => ({ at: start, end, givenUp: false }));
  }

  /** The first piece without a connection; undefined when all are taken. Pieces get smaller near the end, so that all connections end together. */
  take(connections: number): Piece | undefined {
    const first = this.#free[0];
    if (!first) return undefined;
    const left = total(this.#free);
    const share = Math.min(LARGEST, Math.max(SMALLEST, Math.ceil(left / (2 * connections))));
    const stretch = first.end - first.at;
    // A small remainder is part of the piece before it.
    const length = first.givenUp || stretch - share < SMALLEST ? stretch : share;
    const piece = { at: first.at, end: first.at + length };
    first.at = piece.end;
    if (first.at === first.end) this.#free.shift();
    this.#open.add(piece);
    return piece;
  }

  /** The connection ends its piece; the missing rest of it is free again. */
  give(piece: Piece): void {
    this.#open.delete(piece);
    if (piece.at === piece.end) return;
    this.#free.push({ ...piece, givenUp: true });
    this.#free.sort((a, b) => a.at - b.at);
  }

  /** Offset of the first missing byte. */
  get front(): number {
    let front = this.#free[0]?.at ?? this.size;
    for (const { at, end } of this.#open) if (at < end) front = Math.min(front, at);
    return front;
  }

  /** Number of received bytes. */
  get received(): number {
    return this.size - total(this.#free) - total(this.#open);
  }

  /** Received ranges, in order. */
  get present(): ByteRange[] {
    const missing = [...this.#free, ...this.#open].map(({ at, end }) => ({ start: at, end }));
    return without(
      missing.toSorted((a, b) => a.start - b.start),
      this.size,
    );
  }

  /** There are pieces without a connection. */
  get waiting(): boolean {
    return this.#free.length > 0;
  }
}

function total(pieces: Iterable<Piece>): number {
  let sum = 0;
  for (const { at, end } of pieces) sum += end - at;
  return sum;
}

/** The parts of `size` bytes in none of the ordered ranges. */
function without(ranges: readonly ByteRange[], size: number): ByteRange[] {
  const starts = [0, ...ranges.map(({ end }) => end)];
  const ends = [...ranges.map(({ start }) => start), size];
  return starts.map((start, n) => ({ start, end: ends[n]! })).filter(({ start, end }) => start < end);
}
