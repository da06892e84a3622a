import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import type { Layer } from '../../src/oci/image.ts';
import type { PullEvent } from '../../src/report/event.ts';
import { textReport } from '../../src/report/text.ts';

const layer = (digit: string): Layer => ({
  id: digit.repeat(64),
  mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
  info: {},
  open: () => Promise.reject(new Error('not opened in this test')),
});

function lines(events: readonly PullEvent[]): string {
  const out = new PassThrough();
  const report = textReport(out);
  for (const event of events) report(event);
  return (out.read() as Buffer | null)?.toString('utf8') ?? '';
}

test('text: where others write to the same file, no line is printed in parts', () => {
  const out = new PassThrough();
  const report = textReport(out, true);
  const read = () => (out.read() as Buffer | null)?.toString('utf8');
  for (const event of [
    image,
    { type: 'layer-start', index: 0, cached: true },
    { type: 'layer-start', index: 1, cached: true },
    { type: 'layer-fetched', index: 0 },
    { type: 'layer-fetched', index: 1 },
    { type: 'layer-apply', index: 0 },
  ] satisfies readonly PullEvent[])
    report(event);
  assert.match(read()!, /Downloading layers:\n$/);
  report({ type: 'layer-applied', index: 0, entries: 1 });
  assert.equal(read(), '\taaaaaaaaaaaa ... done\n');
});

const image: PullEvent = { type: 'image', id: 'f'.repeat(64), layers: [layer('a'), layer('b')] };
const head = `Image ID: ${'f'.repeat(64)}\nPulling 2 layers:\n`;

test("text: a pull prints the original's lines", () => {
  const printed = lines([
    { type: 'session', name: 'library/ubuntu' },
    image,
    { type: 'layer-start', index: 0, cached: false },
    { type: 'layer-start', index: 1, cached: false },
    { type: 'layer-fetched', index: 0 },
    { type: 'layer-fetched', index: 1 },
    { type: 'layer-apply', index: 0 },
    { type: 'layer-applied', index: 0, entries: 3 },
    { type: 'layer-apply', index: 1 },
    { type: 'layer-applied', index: 1, entries: 3 },
    { type: 'done', reference: 'library/ubuntu:latest', destination: './rootfs' },
  ]);
  assert.equal(
    printed,
    `Opening a session for library/ubuntu ...\n${head}` +
      '\tPulling fs layer aaaaaaaaaaaa\n\tPulling fs layer bbbbbbbbbbbb\n\tDone aaaaaaaaaaaa\n\tDone bbbbbbbbbbbb\n' +
      'Downloading layers:\n\taaaaaaaaaaaa ... done\n\tbbbbbbbbbbbb ... done\n\n' +
      'Rootfs of library/ubuntu:latest in ./rootfs\n',
  );
});

test('text: layers applied before all are fetched are told when all are', () => {
  const before: readonly PullEvent[] = [
    image,
    { type: 'layer-start', index: 0, cached: false },
    { type: 'layer-apply', index: 0 },
    { type: 'layer-fetched', index: 0 },
    { type: 'layer-applied', index: 0, entries: 1 },
    { type: 'layer-start', index: 1, cached: false },
    { type: 'layer-apply', index: 1 },
  ];
  assert.equal(
    lines(before),
    `${head}\tPulling fs layer aaaaaaaaaaaa\n\tDone aaaaaaaaaaaa\n\tPulling fs layer bbbbbbbbbbbb\n`,
  );
  assert.equal(
    lines([
      ...before,
      { type: 'layer-fetched', index: 1 },
      { type: 'layer-applied', index: 1, entries: 1 },
    ]).split('Done bbbbbbbbbbbb\n')[1],
    'Downloading layers:\n\taaaaaaaaaaaa ... done\n\tbbbbbbbbbbbb ... done\n',
  );
});

test('text: an image without layers', () => {
  assert.equal(
    lines([{ type: 'image', id: 'f'.repeat(64), layers: [] }]),
    `Image ID: ${'f'.repeat(64)}\nPulling 0 layers:\nDownloading layers:\n`,
  );
});

test('text: starts are told base first, whichever layer was found first', () => {
  const printed = lines([
    image,
    { type: 'layer-start', index: 1, cached: true },
    { type: 'layer-fetched', index: 1 },
    { type: 'layer-start', index: 0, cached: true },
    { type: 'layer-fetched', index: 0 },
  ]);
  const [first, second] = ['aaaaaaaaaaaa', 'bbbbbbbbbbbb'];
  const starts = `\tPulling fs layer ${first}\n\tPulling fs layer ${second}\n`;
  assert.equal(printed, `${head}${starts}\tDone ${second}\n\tDone ${first}\nDownloading layers:\n`);
});
