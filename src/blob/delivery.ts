/** The body of an answer, taken in parts of the taker's size. */
export class Delivery {
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

  /** The next bytes, at most `most`; undefined at the end. Throws what the body does. */
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
