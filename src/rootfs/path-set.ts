import { randomFillSync } from 'node:crypto';

const INITIAL_CAPACITY = 1024;

/**
 * A set of paths of any length, in 16 to 32 bytes each. It keeps 64 bits of a hash. Every set has a random
 * key, so nobody can choose paths that collide. With a million paths there is one false positive in 10^13
 * lookups.
 */
export class PathSet {
  /** Two words for each slot, both zero if it is free. */
  #table = new Uint32Array(2 * INITIAL_CAPACITY);
  #capacity = INITIAL_CAPACITY;
  #size = 0;
  readonly #keys = randomFillSync(new Uint32Array(2));
  #first = 0;
  #second = 0;

  get size(): number {
    return this.#size;
  }

  /** Adds a path; returns true if it is new. */
  add(path: string): boolean {
    this.#hash(path);
    const place = this.#find(this.#first, this.#second);
    if (this.#table[place] !== 0 || this.#table[place + 1] !== 0) return false;
    this.#table[place] = this.#first;
    this.#table[place + 1] = this.#second;
    this.#size += 1;
    if (this.#size * 2 > this.#capacity) this.#grow();
    return true;
  }

  has(path: string): boolean {
    if (this.#size === 0) return false;
    this.#hash(path);
    const place = this.#find(this.#first, this.#second);
    return this.#table[place] !== 0 || this.#table[place + 1] !== 0;
  }

  clear(): void {
    if (this.#size === 0) return;
    this.#table = new Uint32Array(2 * INITIAL_CAPACITY);
    this.#capacity = INITIAL_CAPACITY;
    this.#size = 0;
  }

  /** Returns the table index of this hash, or of the free slot where it belongs. */
  #find(first: number, second: number): number {
    const mask = this.#capacity - 1;
    const table = this.#table;
    for (let slot = first & mask; ; slot = (slot + 1) & mask) {
      const place = 2 * slot;
      const low = table[place]!;
      const high = table[place + 1]!;
      if ((low === first && high === second) || (low === 0 && high === 0)) return place;
    }
  }

  #grow(): void {
    const old = this.#table;
    this.#capacity *= 2;
    this.#table = new Uint32Array(2 * this.#capacity);
    for (let place = 0; place < old.length; place += 2) {
      const first = old[place]!;
      const second = old[place + 1]!;
      if (first === 0 && second === 0) continue;
      const target = this.#find(first, second);
      this.#table[target] = first;
      this.#table[target + 1] = second;
    }
  }

  /** Runs two murmur-like mixing rounds side by side, each with its own key and multiplier. */
  #hash(path: string): void {
    let first = this.#keys[0]!;
    let second = this.#keys[1]!;
    for (let index = 0; index < path.length; index += 1) {
      const byte = path.charCodeAt(index);
      first = Math.imul(first ^ byte, 0x85eb_ca6b);
      first ^= first >>> 15;
      second = Math.imul(second ^ byte, 0xc2b2_ae35);
      second ^= second >>> 13;
    }
    first = Math.imul(first ^ path.length, 0x9e37_79b1);
    second = Math.imul(second ^ first, 0x27d4_eb2f);
    this.#first = (first ^ (first >>> 16)) >>> 0;
    // Two zero words would mark a free slot.
    this.#second = ((second ^ (second >>> 15)) | 1) >>> 0;
  }
}
