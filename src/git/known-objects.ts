import { getRandomValues } from 'node:crypto';
import { ID_SIZE } from './objects.ts';

const NAME_WORDS = ID_SIZE / 4;
/** The name, and the checksum. */
const ENTRY_WORDS = NAME_WORDS + 1;
const FIRST_ENTRIES = 1024;

/** Objects by their names, each with a checksum of its content, in about forty bytes each: a Map of strings takes three times as many. */
export class KnownObjects {
  #entries = new Uint32Array(FIRST_ENTRIES * ENTRY_WORDS);
  /** Numbers of entries, counted from 1: each at the place that `#placeOf` gives it, or the next one that was free. */
  #places = new Uint32Array(2 * FIRST_ENTRIES);
  #count = 0;
  /** Nobody can choose contents whose names get the same place. */
  readonly #factors = getRandomValues(new Uint32Array(NAME_WORDS));

  /**
   * Adds an object, unless it is known.
   *
   * @param name `ID_SIZE` bytes
   * @returns the checksum that it is known with, undefined for a new one
   */
  add(name: Buffer, checksum: number): number | undefined {
    const entries = this.#entries;
    const start = this.#count * ENTRY_WORDS;
    for (let word = 0; word < NAME_WORDS; word += 1) entries[start + word] = name.readUInt32LE(4 * word);
    entries[start + NAME_WORDS] = checksum;
    let place = this.#placeOf(start);
    for (let number = this.#places[place]!; number !== 0; number = this.#places[place]!) {
      const known = (number - 1) * ENTRY_WORDS;
      if (this.#areSame(known, start)) return entries[known + NAME_WORDS];
      place = this.#after(place);
    }
    this.#count += 1;
    this.#places[place] = this.#count;
    if (this.#count * ENTRY_WORDS === entries.length) this.#grow();
    return undefined;
  }

  #placeOf(start: number): number {
    let sum = 0;
    for (let word = 0; word < NAME_WORDS; word += 1) {
      const mixed = Math.imul(this.#entries[start + word]! ^ this.#factors[word]!, 0x9e37_79b1);
      sum = Math.imul(sum ^ mixed ^ (mixed >>> 15), 0x85eb_ca6b);
    }
    return (sum ^ (sum >>> 13)) & (this.#places.length - 1);
  }

  #after(place: number): number {
    return (place + 1) & (this.#places.length - 1);
  }

  #areSame(one: number, other: number): boolean {
    for (let word = 0; word < NAME_WORDS; word += 1) {
      if (this.#entries[one + word] !== this.#entries[other + word]) return false;
    }
    return true;
  }

  #grow(): void {
    const entries = new Uint32Array(2 * this.#entries.length);
    entries.set(this.#entries);
    this.#entries = entries;
    this.#places = new Uint32Array(2 * this.#places.length);
    for (let number = 1; number <= this.#count; number += 1) {
      let place = this.#placeOf((number - 1) * ENTRY_WORDS);
      while (this.#places[place] !== 0) place = this.#after(place);
      this.#places[place] = number;
    }
  }
}
