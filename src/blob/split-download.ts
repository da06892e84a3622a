import type { FileHandle } from 'node:fs/promises';
import { NetworkError, RateLimitError } from '../errors.ts';
import type { Layer } from '../oci/image.ts';
import type { Arrival } from './arrival.ts';
import type { Connections } from './connections.ts';
import { BrokenTransferError } from './damage.ts';
import type { Persistence } from './persistence.ts';
import { Pieces, type Piece } from './pieces.ts';
import { diskError } from './disk-error.ts';
import { abandon, timed } from './transfer.ts';
import { writeFully } from './write-behind.ts';

export interface SplitOptions {
  readonly size: number;
  readonly etag: string | undefined;
  readonly connections: Connections;
  readonly persistence: Persistence;
  readonly signal: AbortSignal;
  readonly progress: (received: number) => void;
  readonly sparseAfter: (front: number) => Promise<void>;
  /** The front has moved on. */
  readonly arrived: () => void;
}

/** Fetches the rest of one blob over several connections, front first, each piece to its place in the file. */
export class SplitDownload {
  readonly #layer: Layer;
  readonly #arrival: Arrival;
  readonly #options: SplitOptions;
  readonly #pieces: Pieces;
  readonly #helpers: Promise<void>[] = [];
  readonly #abort = new AbortController();
  readonly #signal: AbortSignal;
  #received: number;
  #mark: number;
  #refused = false;

  constructor(layer: Layer, arrival: Arrival, options: SplitOptions) {
    this.#layer = layer;
    this.#arrival = arrival;
    this.#options = options;
    this.#received = arrival.received;
    this.#mark = arrival.received;
    this.#pieces = new Pieces(arrival.received, options.size);
    this.#signal = AbortSignal.any([options.signal, this.#abort.signal]);
  }

  /**
   * Goes on with `body`, which delivers what follows the front. Resolves to true when all is there, to false when the server does
   * not send the parts that it is asked for: then the arrival goes as far as its front. Throws what a connection failed with in the end.
   */
  async run(body: AsyncIterator<Uint8Array>): Promise<boolean> {
    const file = await this.#arrival.toFile();
    await this.#options.sparseAfter(this.#mark);
    this.#recruit(file);
    try {
      await this.#work(file, body);
      // The list may grow while it is waited for.
      for (const helper of this.#helpers) await helper;
      if (this.#pieces.waiting) await this.#work(file);
    } catch (error) {
      this.#abort.abort(error);
      await Promise.allSettled(this.#helpers);
      throw error;
    }
    return !this.#refused;
  }

  #recruit(file: FileHandle): void {
    for (let { spare } = this.#options.connections; spare > 0 && this.#pieces.waiting; spare -= 1) {
      const helper = this.#options.connections.run(() => this.#help(file));
      helper.catch((error: unknown) => this.#abort.abort(error));
      this.#helpers.push(helper);
    }
  }

  /** Takes pieces until another blob needs the connection. One that does not work is done without. */
  async #help(file: FileHandle): Promise<void> {
    try {
      await this.#work(file, undefined, () => this.#options.connections.wanted);
    } catch (error) {
      if (!(error instanceof NetworkError)) throw error;
    }
  }

  /** One connection's share: piece after piece until there are no more. */
  async #work(file: FileHandle, first?: AsyncIterator<Uint8Array>, enough = () => false): Promise<void> {
    const persistence = this.#options.persistence.another();
    let brought = 0;
    for (let body = first; !this.#refused && !enough(); body = undefined) {
      const piece = this.#pieces.take(this.#helpers.length + 1);
      if (!piece) return;
      const start = piece.at;
      try {
        await (body ? this.#fill(file, piece, body) : this.#fetch(file, piece));
        brought += piece.at - start;
        this.#pieces.give(piece);
        this.#recruit(file);
      } catch (error) {
        brought += piece.at - start;
        this.#pieces.give(piece);
        this.#signal.throwIfAborted();
        await persistence.again(error, brought, piece.at);
      }
    }
  }

  async #fetch(file: FileHandle, piece: Piece): Promise<void> {
    const { at: start, end } = piece;
    const range = { start, end, etag: this.#options.etag };
    const response = await this.#layer.open(range, this.#signal).catch((error: unknown) => {
      this.#signal.throwIfAborted();
      // Perhaps it is only several at once that the server minds; if not, the one connection that is left will tell.
      if (error instanceof NetworkError || error instanceof RateLimitError) return undefined;
      throw error;
    });
    if (response?.start !== start) {
      this.#refused = true;
      if (response) await abandon(response);
      return;
    }
    const body = timed(response.body, { bytes: 0, waited: 0 });
    try {
      await this.#fill(file, piece, body);
    } finally {
      await body.return();
    }
  }

  async #fill(file: FileHandle, piece: Piece, body: AsyncIterator<Uint8Array>): Promise<void> {
    while (piece.at < piece.end && !this.#refused) {
      const next = await body.next();
      this.#signal.throwIfAborted();
      if (next.done) throw new BrokenTransferError('a connection ended before its part was whole');
      const chunk = next.value.subarray(0, piece.end - piece.at);
      await writeFully(file, [chunk], piece.at).catch((error: unknown) => {
        throw diskError(error, this.#arrival.where);
      });
      piece.at += chunk.length;
      await this.#moved(chunk.length);
    }
    await body.return?.();
  }

  async #moved(bytes: number): Promise<void> {
    this.#received += bytes;
    this.#options.progress(this.#received);
    const { front } = this.#pieces;
    if (front === this.#arrival.received) return;
    this.#arrival.advance(front);
    this.#options.arrived();
    if (front - this.#mark < 16 * 2 ** 20) return;
    this.#mark = front;
    await this.#options.sparseAfter(front);
  }
}
