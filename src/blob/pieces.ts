import { BIG } from './connections.ts';

/** A stretch of a blob: from `at`, the next byte wanted, up to `end`, the first not wanted. */
export interface Piece {
  at: number;
  readonly end: number;
}

/** In bytes. Small enough that the front moves on steadily, large enough that a round trip does not count. */
const LARGEST = 16 * 2 ** 20;
const SMALLEST = 2 * 2 ** 20;

/** Less than this is not worth a second connection, in bytes. */
const LEAST = 8 * 2 ** 20;
/** A connection that is faster than this needs no help, in bytes a second. */
const FAST = 100e6;
/** How long the first connection is watched, in milliseconds. */
const WATCH = 120;
/** A rest that comes in less time is left to one connection, in milliseconds. */
const SOON = 300;

/** What one connection did so far. */
export interface Pace {
  readonly bytes: number;
  /** Milliseconds since the answer began. */
  readonly elapsed: number;
  /** Of those, waiting for the network with nothing else to do in this thread. */
  readonly waited: number;
}

/**
 * Whether `remaining` bytes should come over the one connection whose pace is known, or be shared among several. `hungry`: the layer
 * that is being unpacked waits for them. Then the time counts in which they came; else only that in which the thread was idle,
 * since when it is busy it is not the network that is slow.
 */
export function judge(pace: Pace, remaining: number, hungry: boolean): 'alone' | 'share' | 'unknown' {
  if (remaining < LEAST) return 'alone';
  const time = hungry ? pace.elapsed : pace.waited;
  if (time < WATCH) return pace.bytes < BIG ? 'unknown' : 'alone';
  const rate = pace.bytes / time;
  return rate * 1000 < FAST && remaining / rate > SOON ? 'share' : 'alone';
}

/** Whether the connection is faster than a layer is unpacked, so that nothing is gained by fetching ahead onto the disk. */
export function outrunsReader(pace: Pace): boolean {
  return pace.bytes >= 4 * 2 ** 20 && pace.bytes / Math.max(pace.waited, 1) >= 40e3;
}

/** The rest of a blob, handed out front first to several connections. */
export class Pieces {
  readonly #size: number;
  #next: number;
  readonly #open = new Set<Piece>();
  readonly #returned: Piece[] = [];

  constructor(start: number, size: number) {
    this.#next = start;
    this.#size = size;
  }

  /** The foremost piece that nobody has; undefined when all are taken. They get smaller near the end, so that all end together. */
  take(connections: number): Piece | undefined {
    this.#returned.sort((a, b) => a.at - b.at);
    const again = this.#returned.shift();
    if (again) {
      this.#open.add(again);
      return again;
    }
    const left = this.#size - this.#next;
    if (left <= 0) return undefined;
    const share = Math.min(LARGEST, Math.max(SMALLEST, Math.ceil(left / (2 * connections))));
    // A crumb at the end goes with the piece before it.
    const length = left - share < SMALLEST ? Math.min(left, share + SMALLEST) : share;
    const piece = { at: this.#next, end: this.#next + length };
    this.#next = piece.end;
    this.#open.add(piece);
    return piece;
  }

  /** The connection is done with the piece; what it did not bring, somebody else takes. */
  give(piece: Piece): void {
    this.#open.delete(piece);
    if (piece.at < piece.end) this.#returned.push({ at: piece.at, end: piece.end });
  }

  /** All bytes before this one are there. */
  get front(): number {
    const unfinished = [...this.#open, ...this.#returned].filter((piece) => piece.at < piece.end);
    return Math.min(this.#next, ...unfinished.map((piece) => piece.at));
  }

  /** Pieces that nobody has yet. */
  get waiting(): boolean {
    return this.#returned.length > 0 || this.#next < this.#size;
  }
}
