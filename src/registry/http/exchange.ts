import { setImmediate as nextCycle } from 'node:timers/promises';
import type { Dispatcher } from 'undici';
import type { SessionSettings } from '../registry-options.ts';
import type { Proxy } from './proxy.ts';
import { slowError, transportError } from './transport-error.ts';

/** The connections to a server, direct or through a proxy. */
export interface Route {
  readonly dispatcher: Dispatcher;
  readonly proxy: Proxy | undefined;
  /** True if the authorities of the system are trusted besides the bundled ones. */
  readonly system: boolean;
}

/** Names in lower case; headers with the value undefined are not sent. */
export type HttpHeaders = Readonly<Record<string, string | undefined>>;

/** One request to one server; redirects are not followed. */
export interface Request {
  readonly method: 'GET' | 'HEAD' | 'POST';
  readonly url: URL;
  readonly headers: HttpHeaders;
  readonly body?: string | undefined;
  /** Default: the signal of the session. */
  readonly signal?: AbortSignal | undefined;
}

/** The head of an answer, and its body as it arrives. */
export interface Response {
  /** Milliseconds for the whole body of a document. */
  readonly documentTimeout: number;
  /** The signal of the request. */
  readonly signal: AbortSignal;
  /** Milliseconds from the request to this head. */
  readonly time: number;
  /** The address that answered, after redirects. */
  readonly url: URL;
  readonly status: number;
  /** All values of a header, joined by a comma; undefined when it is missing. */
  readonly header: (name: string) => string | undefined;
  /** All values of a header, one by one. */
  readonly headers: (name: string) => readonly string[];
  /** Read it to the end or leave the loop early; if neither happens, call `discard`. */
  readonly body: AsyncIterable<Uint8Array>;
  /** True if the server or the network cut the body short, so far. */
  readonly broken: () => boolean;
  /** Ends the exchange; its connection is closed unless the body had ended. */
  discard(): void;
}

/** Bytes in memory at which the connection is paused, and resumed. */
const HIGH_WATER = 256 * 1024;
const LOW_WATER = HIGH_WATER / 4;

/** The overhead of a chunk in memory, in bytes. */
const CHUNK_COST = 256;

/** A body stalls if it delivers fewer bytes than this within the stall timeout. */
const LEAST_PROGRESS = 4096;

type Chunk = IteratorResult<Uint8Array, undefined>;

/**
 * One request and its answer. The reader gets undici's buffers directly, without a stream. A slow reader
 * pauses the connection; a slow server makes the exchange fail.
 */
export class Exchange implements Dispatcher.DispatchHandler, AsyncIterableIterator<Uint8Array, undefined> {
  readonly #request: Request;
  readonly #timeouts: SessionSettings['timeouts'];
  readonly #signal: AbortSignal;
  readonly #timeLimit: number;
  readonly #head = Promise.withResolvers<Response>();
  readonly #queue: Uint8Array[] = [];
  #queued = 0;
  #wakeReader: (() => void) | undefined;
  #controller: Dispatcher.DispatchController | undefined;
  #proxy: Proxy | undefined;
  #begin = 0;
  #deadline: NodeJS.Timeout | undefined;
  #stallTimer: NodeJS.Timeout | undefined;
  #progress = 0;
  #paused = false;
  #ended = false;
  #broken = false;
  #error: unknown;

  /** @param timeLimit milliseconds until the final status; interim answers (1xx) do not extend it */
  constructor(
    request: Request,
    { timeouts, signal }: Pick<SessionSettings, 'timeouts' | 'signal'>,
    timeLimit: number,
  ) {
    this.#request = request;
    this.#timeLimit = timeLimit;
    this.#timeouts = timeouts;
    this.#signal = request.signal ?? signal;
    this.#signal.addEventListener('abort', this.#abort);
    if (this.#signal.aborted) this.#abort();
  }

  /**
   * The head of the answer.
   *
   * @throws errors of `transportError`, or the signal's reason, even before `send`
   */
  get head(): Promise<Response> {
    return this.#head.promise;
  }

  /** Sends the request, unless its signal was aborted. */
  send(open: () => Promise<Route>): void {
    if (!this.#ended) this.#start(open).catch((error: unknown) => this.#fail(error));
  }

  async #start(open: () => Promise<Route>): Promise<void> {
    this.#begin = performance.now();
    this.#deadline = setTimeout(() => this.#break(slowError('SILENT', this.#timeLimit)), this.#timeLimit);
    const { dispatcher, proxy } = await open();
    this.#proxy = proxy;
    // undici considers a connection busy for one cycle of the event loop after its last answer, and would
    // open another.
    await nextCycle();
    if (this.#ended) return;
    const { method, url, headers, body } = this.#request;
    dispatcher.dispatch(
      {
        origin: url.origin,
        path: url.pathname + url.search,
        method,
        headers,
        body: body ?? null,
        headersTimeout: this.#timeouts.headers,
        bodyTimeout: 0,
      },
      this,
    );
  }

  readonly #abort = () => {
    this.#queue.length = 0;
    this.#fail(this.#signal.reason);
  };

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#ended) controller.abort(new Error('no longer wanted'));
  }

  onResponseStart(
    _: Dispatcher.DispatchController,
    status: number,
    headers: Readonly<Record<string, string | string[] | undefined>>,
  ): void {
    if (status < 200 || this.#ended) return;
    clearTimeout(this.#deadline);
    this.#stallTimer = setInterval(this.#checkProgress, this.#timeouts.stall);
    const headersOf = (name: string) => [headers[name] ?? []].flat();
    this.#head.resolve({
      url: this.#request.url,
      documentTimeout: this.#timeouts.document,
      signal: this.#signal,
      time: performance.now() - this.#begin,
      status,
      headers: headersOf,
      header: (name) => (headers[name] === undefined ? undefined : headersOf(name).join(', ')),
      body: this,
      broken: () => this.#broken,
      discard: () => this.#fail(new Error('discarded')),
    });
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Uint8Array): void {
    if (this.#ended) return;
    this.#progress += chunk.length;
    this.#queue.push(chunk);
    this.#queued += chunk.length + CHUNK_COST;
    this.#wakeReader?.();
    if (this.#queued < HIGH_WATER) return;
    this.#paused = true;
    controller.pause();
  }

  onResponseEnd(): void {
    if (!this.#ended) this.#end();
  }

  onResponseError(_: Dispatcher.DispatchController | null, error: Error): void {
    this.#break(error);
  }

  readonly #checkProgress = () => {
    if (!this.#paused && this.#progress < LEAST_PROGRESS)
      this.#break(slowError('STALLED', this.#timeouts.stall));
    this.#progress = this.#paused ? LEAST_PROGRESS : 0;
  };

  #end(): void {
    this.#ended = true;
    clearTimeout(this.#deadline);
    clearInterval(this.#stallTimer);
    this.#signal.removeEventListener('abort', this.#abort);
    this.#wakeReader?.();
  }

  #break(error: Error): void {
    if (!this.#ended) this.#broken = true;
    this.#fail(error);
  }

  #fail(error: unknown): void {
    if (this.#ended) return;
    this.#error = this.#signal.aborted
      ? this.#signal.reason
      : transportError(error, this.#request.url, {
          inBody: this.#stallTimer !== undefined,
          proxy: this.#proxy,
        });
    this.#end();
    this.#head.reject(this.#error);
    this.#controller?.abort(error instanceof Error ? error : new Error('aborted'));
  }

  async next(): Promise<Chunk> {
    if (this.#queue.length === 0 && !this.#ended)
      await new Promise<void>((wake) => (this.#wakeReader = wake));
    const value = this.#queue.shift();
    if (value) {
      this.#queued -= value.length + CHUNK_COST;
      if (this.#paused && this.#queued < LOW_WATER) {
        this.#paused = false;
        this.#controller?.resume();
      }
      return { done: false, value };
    }
    if (this.#error !== undefined) throw this.#error;
    return { done: true, value: undefined };
  }

  /** Ends the exchange: the reader left the loop early. */
  return(): Promise<Chunk> {
    this.#queue.length = 0;
    this.#fail(new Error('left early'));
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}
