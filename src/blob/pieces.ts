import type { ByteRange } from './claim.ts';

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
