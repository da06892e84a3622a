import { setTimeout as sleep } from 'node:timers/promises';
import { sha256 } from '../../support/fake-image.ts';
import type { Digest } from '../../../src/oci/digest.ts';
import type { BlobRange, Layer } from '../../../src/oci/image.ts';

/** The course of one request. By default it succeeds, without delay. */
export interface Play {
  /** An error that is thrown instead of a response. */
  readonly refusal?: Error;
  /** Milliseconds between chunks of 64 KiB. */
  readonly pause?: number;
  /** Awaited before the first byte. */
  readonly gate?: Promise<unknown>;
  /** After this many bytes `failure` is thrown; without a failure the body ends. */
  readonly stopAfter?: number;
  readonly failure?: Error;
}

const CHUNK = 65_536;

/** A body that records if it was read to its end or closed. */
class Body implements AsyncIterableIterator<Uint8Array, undefined> {
  over = false;
  readonly #bytes: Buffer;
  readonly #play: Play;
  readonly #signal: AbortSignal;
  readonly #sent: (bytes: number) => void;
  #at = 0;

  constructor(bytes: Buffer, play: Play, signal: AbortSignal, sent: (bytes: number) => void) {
    this.#bytes = bytes;
    this.#play = play;
    this.#signal = signal;
    this.#sent = sent;
  }

  async next(): Promise<IteratorResult<Uint8Array, undefined>> {
    const { pause = 0, gate, stopAfter = Infinity, failure } = this.#play;
    try {
      if (this.#at === 0 && gate) await Promise.race([gate, aborted(this.#signal)]);
      if (pause > 0) await sleep(pause, undefined, { signal: this.#signal });
      this.#signal.throwIfAborted();
      if (this.#at >= stopAfter && failure) throw failure;
    } catch (error) {
      this.over = true;
      throw error;
    }
    const end = Math.min(this.#at + CHUNK, this.#bytes.length, stopAfter);
    const value = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    this.over ||= value.length === 0 || (failure === undefined && end === this.#bytes.length);
    this.#sent(value.length);
    return value.length === 0 ? { done: true, value: undefined } : { done: false, value };
  }

  async return(): Promise<IteratorResult<Uint8Array, undefined>> {
    this.over = true;
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

async function aborted(signal: AbortSignal): Promise<never> {
  signal.throwIfAborted();
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

/** A layer whose responses follow a script. It records its requests. */
export class ScriptedLayer {
  readonly layer: Layer;
  readonly requests: BlobRange[] = [];
  readonly #bodies: Body[] = [];
  /** Number of bytes sent in all responses. */
  sent = 0;

  /** @param script gets the number of earlier requests, and the requested range */
  constructor(bytes: Buffer, script: (number: number, range: BlobRange) => Play) {
    const digest = sha256(bytes) as Digest;
    this.layer = {
      id: digest.slice(7),
      mediaType: '',
      digest,
      checksum: { digest },
      size: bytes.length,
      info: {},
      open: async (range, signal) => {
        const play = script(this.requests.length, range);
        this.requests.push(range);
        await Promise.resolve();
        if (play.refusal) throw play.refusal;
        const body = new Body(bytes.subarray(range.start, range.end), play, signal, (count) => {
          this.sent += count;
        });
        this.#bodies.push(body);
        return { body, start: range.start, size: bytes.length, etag: '"x"', ranges: true };
      },
    };
  }

  /** Number of connections that were neither read to the end nor closed. */
  get open(): number {
    return this.#bodies.filter(({ over }) => !over).length;
  }
}
