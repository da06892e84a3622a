import type { FileHandle } from 'node:fs/promises';
import { NetworkError } from '../errors.ts';
import type { Layer } from '../oci/image.ts';
import { type BlobBuffer, writeFully } from './buffer.ts';
import type { ByteRange } from './claim.ts';
import { PaceMeter } from './pace.ts';
import type { SchedulerPlace } from './scheduler.ts';
import { diskError } from './store-files.ts';
import { abandon, BrokenTransferError, type RetryBudget, TimedBody } from './transfer.ts';

/** After so many failures no helper is tried any more: each may take the piece that the first connection is about to receive. */
const MAX_FAILURES = 8;

export interface SplitOptions {
  readonly etag: string | undefined;
  readonly place: SchedulerPlace;
  readonly budget: RetryBudget;
  /** Called with the number of further bytes in the file, after the front has moved on. */
  readonly arrived: (bytes: number) => Promise<void>;
}

/** Fetches what is missing of one blob over several connections, front first, each piece to its place in the file. */
export class SplitDownload {
  readonly #layer: Layer;
  readonly #buffer: BlobBuffer;
  readonly #options: SplitOptions;
  readonly #pieces: Pieces;
  readonly #helpers = new Set<Promise<void>>();
  readonly #abort = new AbortController();
  readonly #signal: AbortSignal;
  #refused = false;
  /** Helpers that failed since one worked. */
  #failures = 0;
  /** A connection did not work, and since then no piece became whole: others would not either. */
  #failing = false;

  constructor(layer: Layer, buffer: BlobBuffer, pieces: Pieces, options: SplitOptions) {
    this.#layer = layer;
    this.#buffer = buffer;
    this.#options = options;
    this.#pieces = pieces;
    this.#signal = AbortSignal.any([options.budget.signal, this.#abort.signal]);
  }

  /**
   * Continues with `body`, if given: it delivers what follows the front. Resolves to true when all is there, to false when the server
   * does not send the parts that it is asked for: then the buffer ends at its front.
   *
   * @throws what a connection failed with in the end
   */
  async run(body: AsyncIterator<Uint8Array> | undefined): Promise<boolean> {
    const file = await this.#buffer.toFile();
    // It may be waiting: an end of the others ends it too.
    this.#abort.signal.addEventListener('abort', () => void body?.return?.());
    const end = this.#options.place.share({
      wanting: () => this.#pieces.waiting && this.#helpersWork && !this.#signal.aborted,
      work: async () => this.#helped(this.#help(file)),
    });
    try {
      await this.#work(file, body);
      await this.#helpersLeft();
      // Pieces that helpers gave up: there may be new ones since the last look.
      while (this.#pieces.waiting && !this.#refused) {
        await this.#work(file);
        await this.#helpersLeft();
      }
    } catch (error) {
      this.#abort.abort(error);
      await Promise.allSettled(this.#helpers);
      throw error;
    } finally {
      end();
    }
    return !this.#refused;
  }

  /**
   * Resolves when no connection but the first is at work.
   *
   * @throws what a helper failed with
   */
  async #helpersLeft(): Promise<void> {
    // There may be more of them while they are waited for.
    while (this.#helpers.size > 0) await Promise.all(this.#helpers);
    this.#signal.throwIfAborted();
  }

  async #helped(helper: Promise<void>): Promise<void> {
    this.#helpers.add(helper);
    await helper.catch((error: unknown) => this.#abort.abort(error));
    this.#helpers.delete(helper);
  }

  get #helpersWork(): boolean {
    return !this.#refused && !this.#failing && this.#failures < MAX_FAILURES;
  }

  /** Takes pieces until a blob before this one wants the connection. One that does not work is done without. */
  async #help(file: FileHandle): Promise<void> {
    try {
      await this.#work(file, undefined, () => this.#options.place.wantedBefore());
      this.#failures = 0;
    } catch (error) {
      if (!(error instanceof NetworkError)) throw error;
      this.#failing = true;
      this.#failures += 1;
    }
  }

  /** One connection: piece after piece until there are no more, or `enough`. */
  async #work(file: FileHandle, first?: AsyncIterator<Uint8Array>, enough = () => false): Promise<void> {
    const budget = this.#options.budget.another();
    let received = 0;
    // The first connection sends what follows its piece too, which is of use unless another connection took that.
    let open = first && new PartReader(first, this.#buffer.received);
    while (!this.#refused && !enough()) {
      const piece = this.#pieces.take(this.#options.place.connections);
      if (!piece) break;
      // Not before this connection has its piece: the first one continues with the bytes that follow.
      this.#options.place.assign();
      const { at: start } = piece;
      if (open && open.at !== start) {
        await open.end();
        open = undefined;
      }
      const failure = await this.#tryPiece(file, piece, open);
      received += piece.at - start;
      if (failure === undefined) continue;
      this.#signal.throwIfAborted();
      this.#options.place.assign();
      open = undefined;
      await budget.again(failure.error, received, piece.at);
    }
    await open?.end();
  }

  /** Answers why the piece is not complete; what it lacks, another connection may take. */
  async #tryPiece(
    file: FileHandle,
    piece: Piece,
    open: PartReader | undefined,
  ): Promise<{ readonly error: unknown } | undefined> {
    try {
      await (open ? this.#fill(file, piece, open) : this.#fetch(file, piece));
      this.#failing = false;
      return undefined;
    } catch (error) {
      return { error };
    } finally {
      this.#pieces.give(piece);
    }
  }

  async #fetch(file: FileHandle, piece: Piece): Promise<void> {
    const { at: start, end } = piece;
    const range = { start, end, etag: this.#options.etag };
    const response = await this.#layer.open(range, this.#signal).catch(() => {
      this.#signal.throwIfAborted();
      // Perhaps it is only several at once that the server minds; if not, the one connection that is left will tell.
      return undefined;
    });
    if (response?.start !== start) {
      this.#refused = true;
      if (response) await abandon(response);
      return;
    }
    const delivery = new PartReader(new TimedBody(response.body, new PaceMeter()), start);
    try {
      await this.#fill(file, piece, delivery);
    } finally {
      await delivery.end();
    }
  }

  async #fill(file: FileHandle, piece: Piece, delivery: PartReader): Promise<void> {
    while (piece.at < piece.end && !this.#refused) {
      const chunk = await delivery.next(piece.end - piece.at);
      this.#signal.throwIfAborted();
      if (!chunk) throw new BrokenTransferError('the connection ended before its range was complete');
      await writeFully(file, [chunk], piece.at).catch((error: unknown) => {
        throw diskError(error, this.#buffer.where);
      });
      piece.at += chunk.length;
      await this.#moved(chunk.length);
    }
  }

  async #moved(bytes: number): Promise<void> {
    const { front } = this.#pieces;
    if (front > this.#buffer.received) this.#buffer.advance(front);
    await this.#options.arrived(bytes);
  }
}

/** A stretch of a blob: from `at`, the next byte wanted, up to `end`, the first not wanted. */
export interface Piece {
  at: number;
  readonly end: number;
}

/** In bytes. Small enough that the front moves on steadily, large enough that a round trip does not count. */
const LARGEST = 16 * 2 ** 20;
const SMALLEST = 2 * 2 ** 20;

/** What is missing of a blob, handed out front first to several connections. */
export class Pieces {
  readonly size: number;
  /** Missing, and nobody's; in order. What a connection gave up goes to the next one as it is. */
  readonly #free: (Piece & { readonly givenUp: boolean })[];
  readonly #open = new Set<Piece>();

  /** @param present what is there, in order; the rest of `size` bytes is missing */
  constructor(present: readonly ByteRange[], size: number) {
    this.size = size;
    this.#free = without(present, size).map(({ start, end }) => ({ at: start, end, givenUp: false }));
  }

  /** The foremost piece that nobody has; undefined when all are taken. They get smaller near the end, so that all end together. */
  take(connections: number): Piece | undefined {
    const first = this.#free[0];
    if (!first) return undefined;
    const left = total(this.#free);
    const share = Math.min(LARGEST, Math.max(SMALLEST, Math.ceil(left / (2 * connections))));
    const stretch = first.end - first.at;
    // A crumb at the end goes with the piece before it.
    const length = first.givenUp || stretch - share < SMALLEST ? stretch : share;
    const piece = { at: first.at, end: first.at + length };
    first.at = piece.end;
    if (first.at === first.end) this.#free.shift();
    this.#open.add(piece);
    return piece;
  }

  /** The connection is done with the piece; what it did not bring, somebody else takes. */
  give(piece: Piece): void {
    this.#open.delete(piece);
    if (piece.at === piece.end) return;
    this.#free.push({ ...piece, givenUp: true });
    this.#free.sort((a, b) => a.at - b.at);
  }

  /** All bytes before this one are there. */
  get front(): number {
    let front = this.#free[0]?.at ?? this.size;
    for (const { at, end } of this.#open) if (at < end) front = Math.min(front, at);
    return front;
  }

  /** How many bytes are there. */
  get received(): number {
    return this.size - total(this.#free) - total(this.#open);
  }

  /** What is there, in order. */
  get present(): ByteRange[] {
    const missing = [...this.#free, ...this.#open].map(({ at, end }) => ({ start: at, end }));
    return without(
      missing.toSorted((a, b) => a.start - b.start),
      this.size,
    );
  }

  /** Pieces that nobody has yet. */
  get waiting(): boolean {
    return this.#free.length > 0;
  }
}

function total(pieces: Iterable<Piece>): number {
  let sum = 0;
  for (const { at, end } of pieces) sum += end - at;
  return sum;
}

/** What of `size` bytes is in none of the ranges, which come in order. */
function without(ranges: readonly ByteRange[], size: number): ByteRange[] {
  const starts = [0, ...ranges.map(({ end }) => end)];
  const ends = [...ranges.map(({ start }) => start), size];
  return starts.map((start, n) => ({ start, end: ends[n]! })).filter(({ start, end }) => start < end);
}

/** The body of an answer, taken in parts of the taker's size. */
export class PartReader {
  readonly #body: AsyncIterator<Uint8Array>;
  #at: number;
  #rest: Uint8Array | undefined;

  /** @param at place of its first byte in the blob */
  constructor(body: AsyncIterator<Uint8Array>, at: number) {
    this.#body = body;
    this.#at = at;
  }

  /** Place of the next byte in the blob. */
  get at(): number {
    return this.#at;
  }

  /**
   * The next bytes, at most `most`; undefined at the end.
   *
   * @throws what the body does
   */
  async next(most: number): Promise<Uint8Array | undefined> {
    let chunk = this.#rest;
    if (!chunk) {
      const next = await this.#body.next();
      if (next.done) return undefined;
      chunk = next.value;
    }
    const part = chunk.subarray(0, most);
    this.#rest = part.length < chunk.length ? chunk.subarray(part.length) : undefined;
    this.#at += part.length;
    return part;
  }

  /** Closes its connection, unless it has come to its end. */
  async end(): Promise<void> {
    await this.#body.return?.();
  }
}
