import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { test, type TestContext } from 'node:test';
import fc from 'fast-check';
import type { Layer } from '../../src/oci/image.ts';
import { renderBars } from '../../src/report/bars.ts';
import type { PullEvent } from '../../src/report/event.ts';
import {
  Progress,
  progressText,
  formatBytes,
  formatSeconds,
  plainReport,
} from '../../src/report/progress.ts';

const layer = (digit: string, size: number | undefined): Layer => ({
  id: digit.repeat(64),
  mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
  size,
  info: {},
  open: () => Promise.reject(new Error('not opened in this test')),
});

const MIB = 2 ** 20;

function running(...events: readonly (readonly [at: number, event: PullEvent])[]): Progress {
  const progress = new Progress();
  const layers = [layer('a', 40 * MIB), layer('b', 20 * MIB)];
  progress.add({ type: 'image', id: 'f'.repeat(64), layers }, 0);
  for (const [at, event] of events) progress.add(event, at);
  return progress;
}

test('progress: amount, rate and time left', () => {
  const progress = running(
    [0, { type: 'layer-start', index: 0, cached: false }],
    [1000, { type: 'layer-progress', index: 0, received: 10 * MIB }],
  );
  assert.equal(
    progressText(progress, 1000),
    '10.0 MiB of 60.0 MiB, 10.0 MiB/s, 0:05 left, 0 of 2 layers downloaded',
  );
});

test('progress: what was in the store does not count as rate', () => {
  const progress = running(
    [0, { type: 'layer-start', index: 1, cached: true }],
    [10, { type: 'layer-fetched', index: 1 }],
    [20, { type: 'layer-apply', index: 1 }],
    [30, { type: 'layer-applied', index: 1, entries: 5 }],
  );
  assert.equal(progressText(progress, 1000), '20.0 MiB of 60.0 MiB, 1 of 2 layers unpacked');
});

test('progress: layers are counted as downloaded until one is unpacked: cache add unpacks none', () => {
  const fetched = [0, 1].map((index) => [10, { type: 'layer-fetched', index }] as const);
  assert.equal(progressText(running(...fetched), 10), '60.0 MiB of 60.0 MiB, 2 of 2 layers downloaded');
  const applying = [20, { type: 'layer-apply', index: 0 }] as const;
  assert.match(progressText(running(...fetched, applying), 20), /, 0 of 2 layers unpacked$/);
});

const found: PullEvent = {
  type: 'image',
  id: 'f'.repeat(64),
  layers: [layer('a', 40 * MIB), layer('b', 20 * MIB)],
};
const unpacked = [0, 1].flatMap((index): PullEvent[] => [
  { type: 'layer-start', index, cached: false },
  { type: 'layer-fetched', index },
  { type: 'layer-apply', index },
  { type: 'layer-applied', index, entries: 1 },
]);
const done: PullEvent = { type: 'done', reference: 'x:1', destination: 'x' };

/** Returns the lines of a log. `events` are events, and milliseconds to wait. */
function logOf(t: TestContext, events: readonly (PullEvent | number)[]): string[] {
  t.mock.timers.enable({ apis: ['setInterval'] });
  let text = '';
  const err = new Writable({
    write(chunk: Buffer, _encoding, next): void {
      text += chunk.toString();
      next();
    },
  });
  const { report, stop } = plainReport(err);
  for (const event of events) {
    if (typeof event === 'number') t.mock.timers.tick(event);
    else report(event);
  }
  stop();
  t.mock.timers.tick(20_000);
  return text.split('\n').slice(0, -1);
}

test('progress: the last line of a log has all layers, if there was a line before', (t) => {
  const complete = '60.0 MiB of 60.0 MiB, 2 of 2 layers unpacked';
  assert.deepEqual(logOf(t, [found, 5000, ...unpacked, done]), [
    '0 B of 60.0 MiB, 0 of 2 layers downloaded',
    complete,
  ]);
});

for (const [sentence, events, expected] of [
  ['of a short pull there is none', [found, 4000, ...unpacked, done], []],
  [
    'it is not there twice',
    [found, ...unpacked, 5000, done],
    ['60.0 MiB of 60.0 MiB, 2 of 2 layers unpacked'],
  ],
  [
    'it does not come again while nothing changes, whatever the rate',
    [
      found,
      5000,
      5000,
      { type: 'layer-start', index: 0, cached: true },
      { type: 'layer-progress', index: 0, received: 20 * MIB },
      5000,
      5000,
    ],
    ['0 B of 60.0 MiB, 0 of 2 layers downloaded', '20.0 MiB of 60.0 MiB, 0 of 2 layers downloaded'],
  ],
  [
    'it comes again while a program takes the entries of a disk image',
    [
      found,
      ...unpacked,
      5000,
      { type: 'disk-entries', entries: 100, total: 300 },
      5000,
      { type: 'disk-entries', entries: 200, total: 300 },
      5000,
      5000,
      done,
    ],
    [
      '60.0 MiB of 60.0 MiB, 2 of 2 layers unpacked',
      '60.0 MiB of 60.0 MiB, 2 of 2 layers unpacked, 100 of 300 entries written',
      '60.0 MiB of 60.0 MiB, 2 of 2 layers unpacked, 200 of 300 entries written',
    ],
  ],
  [
    'it comes again while entries are unpacked',
    [
      found,
      { type: 'layer-start', index: 0, cached: true },
      { type: 'layer-fetched', index: 0 },
      { type: 'layer-apply', index: 0 },
      { type: 'layer-entries', index: 0, entries: 1000 },
      5000,
      { type: 'layer-entries', index: 0, entries: 2000 },
      5000,
      5000,
      { type: 'layer-applied', index: 0, entries: 2500 },
      5000,
    ],
    [
      '40.0 MiB of 60.0 MiB, 0 of 2 layers unpacked, 1000 entries of the next',
      '40.0 MiB of 60.0 MiB, 0 of 2 layers unpacked, 2000 entries of the next',
      '40.0 MiB of 60.0 MiB, 1 of 2 layers unpacked',
    ],
  ],
  [
    'after a failure it is the one before',
    [found, 5000, ...unpacked.slice(0, 4)],
    ['0 B of 60.0 MiB, 0 of 2 layers downloaded'],
  ],
  [
    'a comparison, which finds its image again, has one clock',
    [found, found, 5000],
    ['0 B of 60.0 MiB, 0 of 2 layers downloaded'],
  ],
] as const) {
  test(`progress: the last line of a log: ${sentence}`, (t) => {
    assert.deepEqual(logOf(t, events), expected);
  });
}

test('bars: one line per running layer and one for the whole', () => {
  const progress = running(
    [0, { type: 'layer-start', index: 0, cached: false }],
    [0, { type: 'layer-start', index: 1, cached: false }],
    [1000, { type: 'layer-progress', index: 0, received: 20 * MIB }],
    [1000, { type: 'layer-fetched', index: 1 }],
    [1000, { type: 'layer-apply', index: 1 }],
  );
  assert.deepEqual(renderBars(progress, 79, 10, 2000), [
    '  aaaaaaaaaaaa  [====================>                   ]  50% of  40.0 MiB',
    '  bbbbbbbbbbbb  unpacking',
    '40.0 MiB of 60.0 MiB, 20.0 MiB/s, 0:01 left, 0 of 2 layers unpacked',
  ]);
});

/** Numbers with their units. */
const numbers = (line: string) =>
  [...line.matchAll(/[\d.]+ [KMGT]?i?B(?:\/s)?|\d+%|\d+:\d\d|\d[^\s]*/g)].map(([number]) => number);

test('property: no line is wider than the terminal, nor are there more than asked for', () => {
  const event = fc.record({
    index: fc.integer({ min: 0, max: 1 }),
    received: fc.nat(50 * MIB),
    state: fc.nat(4),
  });
  fc.assert(
    fc.property(
      fc.array(event),
      fc.integer({ min: 1, max: 250 }),
      fc.integer({ min: 1, max: 20 }),
      (events, columns, rows) => {
        const types = [
          'layer-start',
          'layer-progress',
          'layer-fetched',
          'layer-apply',
          'layer-applied',
        ] as const;
        const progress = running(
          ...events.map(({ index, received, state }, at) => {
            return [at, { type: types[state]!, index, received, cached: false, entries: 1 }] as const;
          }),
        );
        const lines = renderBars(progress, columns, rows, events.length);
        assert.ok(lines.length <= Math.max(1, rows) && lines.every((line) => line.length <= columns));
        // No number is cut: everything in the short text is also in the full text.
        const full = renderBars(progress, 1000, rows, events.length);
        for (const [index, line] of lines.entries())
          for (const number of numbers(line.replace(/^ *[ab]+/, '')))
            assert.ok(numbers(full[index]!).includes(number), `${number} of ${line}`);
      },
    ),
    { numRuns: 300 },
  );
});

test('quantities for people', () => {
  assert.deepEqual([0, 999, 1536, 10 * MIB, 999 * MIB, 3 * 2 ** 30].map(formatBytes), [
    '0 B',
    '999 B',
    '1.5 KiB',
    '10.0 MiB',
    '999 MiB',
    '3.0 GiB',
  ]);
  assert.deepEqual([0, 9.4, 75, 3600, 36_061].map(formatSeconds), [
    '0:00',
    '0:09',
    '1:15',
    '1:00:00',
    '10:01:01',
  ]);
});
