import { createHash, type Hash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { DestinationError, NetworkError, printable } from '../errors.ts';
import { algorithmOf, type Digest } from '../oci/digest.ts';
import type { BlobResponse, Checksum, RemoteLayer } from '../oci/image.ts';
import { hasCode } from '../sys/os-error.ts';
import { inSeconds, type Retry, RetryBudget, type RetryOptions } from '../sys/retry.ts';
import type { BlobBuffer } from './buffer.ts';
import type { PartialContents } from './claim.ts';
import { type Piece, Pieces } from './pieces.ts';
import type { RequestQueue } from '../sys/request-queue.ts';
import { Body, BrokenTransferError, CorruptBlobError } from './transfer.ts';

/** Number of bytes read back at once, for the digest; few, since the event loop waits for them. */
const READ_BACK = 64 * 1024;
/** Number of bytes between two notes of the file's contents. A killed run loses twice as many at most. */
const NOTE_EVERY = 4 * 2 ** 20;
/** Least number of missing bytes that are requested in pieces. */
const WORTH_PIECES = 16 * 2 ** 20;

export interface DownloadOptions extends RetryOptions {
  /** Name of the blob in messages. */
  readonly name: string;
  readonly requests: RequestQueue;
  /** Rank of the blob, see `RequestQueue`. */
  readonly rank: number;
  /** Called with the number of received bytes whenever it has grown. */
  readonly progress: (received: number) => void;
  /** Notes the contents of a file that has or will have holes. */
  readonly note: (kept: PartialContents) => Promise<void>;
}

/**
 * Brings one blob into its buffer: it resumes, retries and checks. If 16 MiB or more are missing, pieces are
 * requested, front first. That needs a checksum and `-j` above 1. A partial file with holes is also completed
 * in pieces. After the response to the first, the others enter the queue of all requests, one after the
 * other. They are written to their places in the file. A smaller blob is one request. So is the rest if a
 * server does not send a range as requested, or if pieces fail for good.
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
  /** The received and the missing pieces; set if the file has, or will have, holes. */
  #pieces: Pieces | undefined;
  /** Undefined before the first response; false: one connection receives the rest. */
  #ranges: boolean | undefined;
  /** The first response, if it has no range: the whole blob is read from it. */
  #whole: BlobResponse | undefined;
  /** The running requests for pieces beyond the first. */
  readonly #running = new Set<Promise<void>>();
  /** Set while another request waits in the queue. Resolves when it begins. */
  #waiting: Promise<void> | undefined;
  readonly #failed = Promise.withResolvers<never>();
  /** Ends all connections after an error that is final. */
  readonly #abort = new AbortController();
  readonly #signal: AbortSignal;
  #unnoted = 0;
  #notes = Promise.resolve();
  #readBack: Uint8Array | undefined;

  constructor(layer: RemoteLayer, buffer: BlobBuffer, options: DownloadOptions) {
    this.#layer = layer;
    this.#buffer = buffer;
    this.#options = options;
    this.#budget = new RetryBudget(options);
    this.#hash = new BlobHash(layer.checksum);
    this.#failed.promise.catch(() => undefined);
    this.#size = layer.size;
    this.#signal = AbortSignal.any([options.signal, this.#abort.signal]);
  }

  /**
   * Receives the body of the first request: a piece, or the blob. `kept` is in the buffer's file already.
   *
   * @throws as `end`
   */
  async begin(kept: PartialContents): Promise<void> {
    await this.#noting(async () => {
      await this.#resume(kept);
      if (this.#complete) return;
      if (this.#pieces) await this.#receivePiece(this.#pieces);
      if (!this.#pieces) await this.#receiveRest();
    });
  }

  /**
   * Resolves when the blob is complete and its digest right. An error comes after a note of the contents.
   *
   * @throws CorruptBlobError, NetworkError, and errors of opening the blob
   */
  async end(): Promise<void> {
    await this.#noting(async () => {
      if (this.#pieces) await this.#piecesEnd(this.#pieces);
      if (!this.#complete) await this.#options.requests.run(this.#options.rank, () => this.#receiveRest());
    });
    const found = this.#hash.mismatch();
    if (found === undefined) return;
    throw this.#wrong(`it has digest ${found} but must have ${this.#layer.checksum?.digest}`);
  }

  async #noting(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#abort.abort(error);
      await Promise.all(this.#running);
      await this.#note().catch(() => undefined);
      throw error;
    }
  }

  async #resume({ ranges, size: noted = ranges.at(-1)?.end ?? 0 }: PartialContents): Promise<void> {
    const size = this.#layer.size ?? (ranges.length > 0 ? noted : undefined);
    if (size === undefined) return;
    const pieces = new Pieces(ranges, size);
    const isMuch =
      size - pieces.received >= WORTH_PIECES &&
      this.#options.requests.connections > 1 &&
      this.#layer.checksum !== undefined;
    if (isMuch || pieces.received > pieces.front) {
      this.#pieces = pieces;
      this.#size = pieces.size;
    }
    if (ranges.length > 0) {
      await this.#buffer.openFile();
      this.#buffer.advance(pieces.front);
      this.#options.progress(pieces.received);
      await this.#hashFront().catch((error: unknown) => {
        if (!(error instanceof DestinationError)) throw error;
        throw this.#wrong(`cannot read what an earlier run downloaded of it: ${error.message}`);
      });
    }
    this.#complete = ranges.length > 0 && pieces.front === this.#size;
    // The note must be written before the file has a hole.
    if (!this.#complete) await this.#note();
  }

  get #received(): number {
    return (this.#pieces ?? this.#buffer).received;
  }

  /** Receives the rest in order, over one connection after the other. */
  async #receiveRest(): Promise<void> {
    while (!this.#complete) {
      const rest = { start: this.#buffer.received, etag: this.#etag };
      const response = this.#whole ?? (await this.#layer.open(rest, this.#signal));
      this.#whole = undefined;
      const body = new Body(this.#options.name, response);
      const receive = async () => {
        await this.#receiveFrom(body, response);
        this.#complete = true;
      };
      await this.#receiveBody(body, receive, this.#budget, () => this.#received);
    }
  }

  /**
   * Receives from a body, and closes it. If it breaks, returns when another one may be opened for the rest.
   *
   * @param from offset in the blob at which the other one starts
   * @throws the error of `receive` if it is final
   */
  async #receiveBody(
    body: Body,
    receive: () => Promise<void>,
    budget: RetryBudget,
    from: () => number,
  ): Promise<void> {
    try {
      await receive();
      await body.close();
    } catch (error) {
      await body.close();
      this.#signal.throwIfAborted();
      await budget.again(error, (retry) => this.#resumeWords(retry, from()));
    }
  }

  #resumeWords({ failure, wait }: Retry, from: number): string {
    const reason = failure instanceof BrokenTransferError ? failure.reason : failure.message;
    const how = wait === 0 ? 'resuming' : `retrying in ${inSeconds(wait)}`;
    return `${this.#options.name}: ${printable(reason)}; ${how} from byte ${from}`;
  }

  async #receiveFrom(body: Body, response: BlobResponse): Promise<void> {
    this.#check(response);
    // A server without ranges sends the received bytes again.
    while (body.at < this.#buffer.received && (await body.next(this.#buffer.received - body.at)));
    for (let chunk = await body.next(); chunk; chunk = await body.next()) await this.#append(chunk);
    const { received } = this.#buffer;
    if (this.#size === undefined || received === this.#size) return;
    throw this.#broken(`the connection ended after ${received} of ${this.#size} bytes`);
  }

  /** @throws CorruptBlobError if the response is about another blob than the received bytes */
  #check(response: BlobResponse): void {
    this.#size = this.#sizeBy(response);
    // With a digest, any content must be the same bytes. Without one, only the entity tag shows a change.
    const changed = this.#etag !== undefined && response.etag !== this.#etag && !this.#layer.checksum;
    this.#etag = response.etag;
    if (changed && this.#buffer.received > 0) {
      throw this.#wrong('it changed on the server during the download');
    }
  }

  /** Returns the blob's size in bytes. The manifest's is correct; that of a registry v1 may be wrong. */
  #sizeBy({ size }: BlobResponse): number | undefined {
    const known = this.#size;
    if (size === undefined || known === undefined || size === known) return size ?? known;
    if (this.#layer.size === undefined)
      throw this.#wrong(`the server had ${known} bytes of it, and now ${size}`);
    if (this.#layer.digest === undefined) return size;
    throw this.#wrong(`the server has ${size} bytes of it, but the manifest says ${known}`);
  }

  #broken(reason: string): BrokenTransferError {
    return new BrokenTransferError(this.#options.name, reason);
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

  /** Puts a request for the next piece into the queue, unless one waits there or no piece is left. */
  #queuePiece(pieces: Pieces): void {
    if (this.#waiting || !pieces.waiting || this.#ranges !== true || this.#signal.aborted) return;
    const begun = Promise.withResolvers<void>();
    this.#waiting = begun.promise;
    const { requests, rank } = this.#options;
    void requests.run(rank, async () => {
      const request = this.#receivePiece(pieces).catch((error: unknown) => this.#failed.reject(error));
      this.#running.add(request);
      this.#waiting = undefined;
      begun.resolve();
      this.#queuePiece(pieces);
      await request;
      this.#running.delete(request);
    });
  }

  /** Receives the first piece without a connection. */
  async #receivePiece(pieces: Pieces): Promise<void> {
    if (this.#ranges === false || this.#signal.aborted) return;
    const piece = pieces.take();
    if (!piece) return;
    const budget = new RetryBudget(this.#options);
    try {
      while (piece.at < piece.end && !this.#whole && (this.#ranges ?? true)) {
        const opened = await this.#openAt(piece);
        if (!opened) break;
        this.#queuePiece(pieces);
        const receive = () => this.#receiveInto(opened, piece, pieces, budget);
        await this.#receiveBody(opened, receive, budget, () => piece.at);
      }
    } catch (error) {
      // One connection may do better than several.
      if (!(error instanceof NetworkError) || this.#ranges === undefined) throw error;
      this.#ranges = false;
    } finally {
      pieces.give(piece);
      this.#queuePiece(pieces);
    }
  }

  /** Receives the missing part of a piece, as far as the body has it. */
  async #receiveInto(body: Body, piece: Piece, pieces: Pieces, budget: RetryBudget): Promise<void> {
    while (piece.at < piece.end && this.#ranges === true) {
      const chunk = await body.next(piece.end - piece.at);
      this.#signal.throwIfAborted();
      if (!chunk) throw this.#broken('the connection ended before its range was complete');
      await this.#buffer.writeAt(chunk, piece.at);
      if (piece.at === this.#hash.bytes) this.#hash.update(chunk);
      piece.at += chunk.length;
      if (pieces.front > this.#buffer.received) this.#buffer.advance(pieces.front);
      await this.#arrived(chunk.length);
      budget.received(chunk.length);
    }
  }

  /** Requests the rest of a piece; undefined if the server does not send it. One connection does the rest. */
  async #openAt({ at: start, end }: Piece): Promise<Body | undefined> {
    const isFirst = this.#ranges === undefined;
    const range = { start, end, etag: this.#etag };
    const response = await this.#layer.open(range, this.#signal).catch((error: unknown) => {
      this.#signal.throwIfAborted();
      // The server may only refuse several connections; if not, the one connection that is left gets the
      // error.
      if (!isFirst || hasCode(error, 'OTHER_RANGE')) return undefined;
      throw error;
    });
    if (isFirst && response) this.#check(response);
    const isAsked = response?.start === start && response.ranges;
    if (isAsked) {
      this.#ranges ??= true;
      return new Body(this.#options.name, response, end);
    }
    this.#ranges = false;
    if (response && isFirst) {
      this.#whole = response;
      this.#pieces = undefined;
    } else if (response) await new Body(this.#options.name, response).close();
    return undefined;
  }

  /** Waits for all pieces. If they failed, one connection receives the rest from the front on. */
  async #piecesEnd(pieces: Pieces): Promise<void> {
    while (this.#running.size > 0 || (this.#waiting && pieces.waiting && this.#ranges === true)) {
      const next = [this.#failed.promise, ...this.#running];
      await Promise.race(this.#waiting ? [this.#waiting, ...next] : next);
    }
    this.#signal.throwIfAborted();
    await this.#notes;
    await this.#hashFront();
    this.#complete = this.#buffer.received === pieces.size;
    if (this.#complete) return;
    await this.#note();
    this.#pieces = undefined;
  }

  async #arrived(bytes: number): Promise<void> {
    this.#budget.received(bytes);
    this.#options.progress(this.#received);
    this.#hashMore();
    this.#unnoted += bytes;
    if (this.#unnoted < NOTE_EVERY) return;
    // The connections go on while a note is written, but wait for it before the next.
    await this.#notes;
    if (this.#unnoted >= NOTE_EVERY) this.#note().catch((error: unknown) => this.#failed.reject(error));
  }

  /** Notes the contents of the file, unless its length alone describes them. */
  async #note(): Promise<void> {
    const pieces = this.#pieces;
    this.#unnoted = 0;
    if (!pieces) return;
    this.#notes = this.#notes.then(() => this.#options.note({ ranges: pieces.present, size: this.#size }));
    await this.#notes;
  }

  /** Hashes some more of the file's bytes before the front. Returns true if bytes are left. */
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

  /** Returns the digest if it is wrong; undefined if it is right, or without a checksum. Ends the hash. */
  mismatch(): Digest | undefined {
    if (!this.#checksum || !this.#hash) return undefined;
    const { digest } = this.#checksum;
    this.#found ??= `${algorithmOf(digest)}:${this.#hash.digest('hex')}` as Digest;
    return this.#found === digest ? undefined : this.#found;
  }
}
