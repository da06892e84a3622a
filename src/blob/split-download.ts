import type { FileHandle } from 'node:fs/promises';
import { NetworkError } from '../errors.ts';
import type { Layer } from '../oci/image.ts';
import type { Arrival } from './arrival.ts';
import type { Connections } from './connections.ts';
import { BrokenTransferError } from './damage.ts';
import { Delivery } from './delivery.ts';
import type { Persistence } from './persistence.ts';
import type { Piece, Pieces } from './pieces.ts';
import { diskError } from './disk-error.ts';
import { abandon, Meter, TimedBody } from './transfer.ts';
import { writeFully } from './write-behind.ts';

export interface SplitOptions {
  readonly etag: string | undefined;
  readonly connections: Connections;
  /** Place in the image, from 0. */
  readonly rank: number;
  readonly persistence: Persistence;
  readonly signal: AbortSignal;
  /** Hears of so many bytes more that are in the file; the front may have moved on. */
  readonly arrived: (bytes: number) => Promise<void>;
}

/** Fetches what is missing of one blob over several connections, front first, each piece to its place in the file. */
export class SplitDownload {
  readonly #layer: Layer;
  readonly #arrival: Arrival;
  readonly #options: SplitOptions;
  readonly #pieces: Pieces;
  readonly #helpers = new Set<Promise<void>>();
  readonly #abort = new AbortController();
  readonly #signal: AbortSignal;
  #refused = false;
  /** A connection did not work, and since then no piece became whole: others would not either. */
  #lame = false;

  constructor(layer: Layer, arrival: Arrival, pieces: Pieces, options: SplitOptions) {
    this.#layer = layer;
    this.#arrival = arrival;
    this.#options = options;
    this.#pieces = pieces;
    this.#signal = AbortSignal.any([options.signal, this.#abort.signal]);
  }

  /**
   * Goes on with `body`, if there is one: it delivers what follows the front. Resolves to true when all is there, to false when the server
   * does not send the parts that it is asked for: then the arrival goes as far as its front. Throws what a connection failed with in the end.
   */
  async run(body: AsyncIterator<Uint8Array> | undefined): Promise<boolean> {
    const file = await this.#arrival.toFile();
    // Whatever it waits for: what ends the others ends it too.
    this.#abort.signal.addEventListener('abort', () => void body?.return?.());
    const { connections, rank } = this.#options;
    const end = connections.share({
      rank,
      wanting: () => this.#pieces.waiting && !this.#refused && !this.#lame && !this.#signal.aborted,
      help: async () => this.#helped(this.#help(file)),
    });
    try {
      await this.#work(file, body);
      await this.#helpersLeft();
      // What helpers gave up; meanwhile there may be new ones.
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

  /** Resolves when no connection but the first is at work. Throws what a helper failed with. */
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

  /** Takes pieces until a blob before this one wants the connection. One that does not work is done without. */
  async #help(file: FileHandle): Promise<void> {
    try {
      await this.#work(file, undefined, () => this.#options.connections.wantedBefore(this.#options.rank));
    } catch (error) {
      if (!(error instanceof NetworkError)) throw error;
      this.#lame = true;
    }
  }

  /** One connection's share: piece after piece until there are no more. */
  async #work(file: FileHandle, first?: AsyncIterator<Uint8Array>, enough = () => false): Promise<void> {
    const persistence = this.#options.persistence.another();
    let brought = 0;
    // What the first connection delivers goes on behind its piece, and is welcome unless another took that.
    let whole = first && new Delivery(first, this.#arrival.received);
    while (!this.#refused && !enough()) {
      const piece = this.#pieces.take(this.#options.connections.count);
      if (!piece) break;
      const start = piece.at;
      try {
        if (whole && whole.at !== start) {
          await whole.end();
          whole = undefined;
        }
        await (whole ? this.#fill(file, piece, whole) : this.#fetch(file, piece));
        brought += piece.at - start;
        this.#pieces.give(piece);
        this.#lame = false;
        this.#options.connections.deal();
      } catch (error) {
        brought += piece.at - start;
        this.#pieces.give(piece);
        this.#signal.throwIfAborted();
        whole = undefined;
        await persistence.again(error, brought, piece.at);
      }
    }
    await whole?.end();
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
    const delivery = new Delivery(new TimedBody(response.body, new Meter()), start);
    try {
      await this.#fill(file, piece, delivery);
    } finally {
      await delivery.end();
    }
  }

  async #fill(file: FileHandle, piece: Piece, delivery: Delivery): Promise<void> {
    while (piece.at < piece.end && !this.#refused) {
      const chunk = await delivery.next(piece.end - piece.at);
      this.#signal.throwIfAborted();
      if (!chunk) throw new BrokenTransferError('a connection ended before its part was whole');
      await writeFully(file, [chunk], piece.at).catch((error: unknown) => {
        throw diskError(error, this.#arrival.where);
      });
      piece.at += chunk.length;
      await this.#moved(chunk.length);
    }
  }

  async #moved(bytes: number): Promise<void> {
    const { front } = this.#pieces;
    if (front > this.#arrival.received) this.#arrival.advance(front);
    await this.#options.arrived(bytes);
  }
}
