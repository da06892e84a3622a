import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Piece, Pieces } from '../../src/blob/pieces.ts';

const MiB = 2 ** 20;

test('every byte is assigned once, in any order of failures', () => {
  const steps = fc.array(fc.record({ connection: fc.nat(6), bytes: fc.nat(20 * MiB) }), { minLength: 1 });
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 50 * MiB }),
      fc.integer({ min: 1, max: 400 * MiB }),
      steps,
      (start, length, moves) => {
        const size = start + length;
        const pieces = new Pieces([{ start: 0, end: start }], size);
        const held = new Map<number, Piece>();
        const came: [number, number][] = [];
        const step = (connection: number, bytes: number) => {
          const piece = held.get(connection) ?? pieces.take();
          if (!piece) return;
          held.set(connection, piece);
          const end = Math.min(piece.end, piece.at + bytes);
          came.push([piece.at, end]);
          piece.at = end;
          if (piece.at === piece.end || bytes % 3 === 0) {
            pieces.give(piece);
            held.delete(connection);
          }
        };
        for (const { connection, bytes } of moves) step(connection, bytes);
        for (const connection of held.keys()) step(connection, size);
        while (pieces.waiting) step(0, size);
        assert.equal(pieces.front, size);
        let front = start;
        for (const [from, to] of came.toSorted((a, b) => a[0] - b[0] || a[1] - b[1])) {
          assert.equal(from, front);
          front = to;
        }
        assert.equal(front, size);
      },
    ),
    { numRuns: 200 },
  );
});

test('stored bytes are not assigned; stored and missing ones together are the blob', () => {
  const lengths = fc.array(fc.integer({ min: 1, max: 20 * MiB }), { minLength: 1, maxLength: 9 });
  fc.assert(
    fc.property(lengths, fc.boolean(), fc.nat(9), (stretches, begins, taken) => {
      const present: { start: number; end: number }[] = [];
      let size = 0;
      for (const [n, length] of stretches.entries()) {
        if ((n % 2 === 0) === begins) present.push({ start: size, end: size + length });
        size += length;
      }
      const pieces = new Pieces(present, size);
      assert.deepEqual(pieces.present, present);
      const inOnePresent = (at: number) => present.some(({ start, end }) => start <= at && at < end);
      let came = present.reduce((sum, { start, end }) => sum + end - start, 0);
      for (let turn = 0; turn <= taken; turn += 1) {
        const piece = pieces.take();
        if (!piece) break;
        assert.equal(inOnePresent(piece.at) || inOnePresent(piece.end - 1), false);
        assert.equal(pieces.received, came);
        came += piece.end - piece.at;
        piece.at = piece.end;
        pieces.give(piece);
        assert.equal(pieces.received, came);
        assert.equal(
          pieces.present.reduce((sum, { start, end }) => sum + end - start, 0),
          came,
        );
      }
      assert.equal(pieces.front, pieces.present[0]?.start === 0 ? pieces.present[0].end : 0);
    }),
  );
});

test('pieces come front first, 8 MiB each; a remainder below 2 MiB belongs to the last one', () => {
  for (const [size, sizes] of [
    [16, [8, 8]],
    [17, [8, 9]],
    [18, [8, 8, 2]],
    [31, [8, 8, 8, 7]],
    [5, [5]],
  ] as const) {
    const pieces = new Pieces([], size * MiB);
    const found: number[] = [];
    for (let piece = pieces.take(); piece; piece = pieces.take()) found.push((piece.end - piece.at) / MiB);
    assert.deepEqual(found, sizes);
  }
});

test('the front is the first byte that is missing', () => {
  const pieces = new Pieces([], 64 * MiB);
  const [first, second] = [pieces.take()!, pieces.take()!];
  second.at = second.end;
  pieces.give(second);
  assert.equal(pieces.front, 0);
  first.at = 5;
  pieces.give(first);
  assert.equal(pieces.front, 5);
  const again = pieces.take()!;
  assert.deepEqual(again, { at: 5, end: first.end });
  again.at = again.end;
  assert.equal(pieces.front, second.end);
});
