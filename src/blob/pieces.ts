/** Bytes of a blob from `start` to `end`, which is exclusive. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** A range of a blob that one connection receives: `at` is its next byte, `end` is exclusive. */
export interface Piece {
  at: number;
  readonly end: number;
}

/** Size of a piece in bytes. Smaller ones keep the front steady; larger ones make round trips negligible. */
const PIECE_BYTES = 8 * 2 ** 20;
/** A smaller remainder is part of the piece before it. */
const LEAST_REST = 2 * 2 ** 20;

/** The missing ranges of a blob, from its start on, for several connections. */
export class Pieces {
  readonly size: number;
  /** Missing ranges without a connection, in order. A range that was given back is handed out unchanged. */
  readonly #free: (Piece & { readonly givenUp: boolean })[];
  readonly #open = new Set<Piece>();

  /** @param present received ranges, in order; the rest of `size` bytes is missing */
  constructor(present: readonly ByteRange[], size: number) {
    this.size = size;
    this.#free = without(present, size).map(({ start, end }) => ({ at: start, end, givenUp: false }));
  }

  /** Returns the first piece without a connection; undefined if all are taken. */
  take(): Piece | undefined {
    const first = this.#free[0];
    if (!first) return undefined;
    const stretch = first.end - first.at;
    const length = first.givenUp || stretch - PIECE_BYTES < LEAST_REST ? stretch : PIECE_BYTES;
    const piece = { at: first.at, end: first.at + length };
    first.at = piece.end;
    if (first.at === first.end) this.#free.shift();
    this.#open.add(piece);
    return piece;
  }

  /** Ends the piece of a connection. Its missing rest is free again. */
  give(piece: Piece): void {
    this.#open.delete(piece);
    if (piece.at === piece.end) return;
    this.#free.push({ ...piece, givenUp: true });
    this.#free.sort((a, b) => a.at - b.at);
  }

  /** Returns the offset of the first missing byte. */
  get front(): number {
    let front = this.#free[0]?.at ?? this.size;
    for (const { at, end } of this.#open) if (at < end) front = Math.min(front, at);
    return front;
  }

  /** Returns the number of received bytes. */
  get received(): number {
    return this.size - total(this.#free) - total(this.#open);
  }

  /** Returns the received ranges, in order. */
  get present(): ByteRange[] {
    const missing = [...this.#free, ...this.#open].map(({ at, end }) => ({ start: at, end }));
    return without(
      missing.toSorted((a, b) => a.start - b.start),
      this.size,
    );
  }

  /** True if any piece has no connection. */
  get waiting(): boolean {
    return this.#free.length > 0;
  }
}

function total(pieces: Iterable<Piece>): number {
  let sum = 0;
  for (const { at, end } of pieces) sum += end - at;
  return sum;
}

/** Returns the parts of `size` bytes in none of the ordered ranges. */
function without(ranges: readonly ByteRange[], size: number): ByteRange[] {
  const starts = [0, ...ranges.map(({ end }) => end)];
  const ends = [...ranges.map(({ start }) => start), size];
  return starts.map((start, n) => ({ start, end: ends[n]! })).filter(({ start, end }) => start < end);
}
