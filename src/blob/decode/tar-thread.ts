import { setImmediate as turn } from 'node:timers/promises';
import { RingAborted, RingReader, RingWriter } from '../../sys/ring.ts';
import { Decoder, type TarReceiver } from './decoder.ts';

/** Most bytes read at once, before sockets and signals are served. */
const MAX_READ_BYTES = 256 * 1024;

/** A decoder's thread whose tars this thread reads, one after another. */
export class TarThread {
  readonly decoder: Decoder;
  readonly #reader: RingReader;
  readonly #writer: RingWriter;

  constructor(memory: TarReceiver['memory']) {
    this.#reader = new RingReader(memory.ring);
    this.#writer = new RingWriter(memory.ring);
    this.decoder = new Decoder({ memory, forsake: () => this.#writer.abort() });
  }

  /**
   * Yields the tar that `fill` makes the decoder write. Each chunk is valid until the next is asked for. It
   * ends only after `fill` has resolved.
   *
   * @throws what `fill` throws
   */
  async *read(fill: () => Promise<void>): AsyncGenerator<Uint8Array, void, undefined> {
    this.#writer.reopen();
    this.#reader.restart();
    const filling = fill();
    filling.catch(() => undefined);
    let isWhole = false;
    try {
      for (;;) {
        const bytes = await this.#reader.readLater(MAX_READ_BYTES);
        if (bytes === undefined) break;
        yield bytes;
        await turn();
      }
      isWhole = true;
    } catch (error) {
      if (!(error instanceof RingAborted)) throw error;
    } finally {
      if (!isWhole) this.#reader.fail();
      this.#reader.leave();
      await filling.catch(() => undefined);
    }
    await filling;
    if (!isWhole) throw new RingAborted('the stream was aborted');
  }

  async discard(): Promise<void> {
    await this.decoder.discard();
  }
}
