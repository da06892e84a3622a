import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import xterm from '@xterm/headless';
import type { Layer } from '../../src/oci/image.ts';
import { type PullEvent, fanOut } from '../../src/report/event.ts';
import { terminalReport } from '../../src/report/bars.ts';
import { textReport } from '../../src/report/text.ts';
import { until } from '../support/until.ts';

/** A terminal to which both streams write, as for a user. */
class Screen {
  readonly #terminal: InstanceType<typeof xterm.Terminal>;
  readonly stream: Writable & { columns: number; rows: number };
  #writes = 0;

  constructor(columns: number, rows: number) {
    const terminal = new xterm.Terminal({ cols: columns, rows, convertEol: true, allowProposedApi: true });
    this.#terminal = terminal;
    const write = (chunk: Buffer, _: BufferEncoding, done: () => void) => {
      this.#writes += 1;
      terminal.write(chunk, done);
    };
    this.stream = Object.assign(new Writable({ write }), { columns, rows });
  }

  /** Changes the width of the window, as a user does. */
  async resize(columns: number): Promise<void> {
    await new Promise<void>((resolve) => this.stream.write('', () => resolve()));
    this.#terminal.resize(columns, this.stream.rows);
    this.stream.columns = columns;
  }

  /** Waits until the bars were erased and drawn again, after what was written before. */
  async redrawn(): Promise<void> {
    await this.text();
    const before = this.#writes;
    // At first a drawing alone, then each time a write that erases and one that draws.
    await until('a new drawing', () => this.#writes >= before + 3);
  }

  /** The lines on the screen, and those above it. */
  async text(): Promise<string> {
    await new Promise<void>((resolve) => this.stream.write('', () => resolve()));
    const { buffer } = this.#terminal;
    const lines = Array.from({ length: buffer.active.length }, (_, y) =>
      buffer.active.getLine(y)!.translateToString(true),
    );
    return lines.join('\n').trimEnd();
  }
}

const MIB = 2 ** 20;
const layer = (digit: string): Layer => ({
  id: digit.repeat(64),
  mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
  size: 40 * MIB,
  info: {},
  open: () => Promise.reject(new Error('not opened in this test')),
});

const fetching: readonly PullEvent[] = [
  { type: 'session', name: 'library/x' },
  { type: 'image', id: 'f'.repeat(64), layers: [layer('a'), layer('b')] },
  { type: 'layer-start', index: 0, cached: false },
  { type: 'layer-start', index: 1, cached: false },
  { type: 'layer-progress', index: 0, received: 20 * MIB },
];

const applying: readonly PullEvent[] = [
  { type: 'layer-fetched', index: 0 },
  { type: 'layer-apply', index: 0 },
  { type: 'layer-fetched', index: 1 },
];

const ending: readonly PullEvent[] = [
  { type: 'layer-applied', index: 0, entries: 1 },
  { type: 'layer-apply', index: 1 },
  { type: 'layer-applied', index: 1, entries: 1 },
  { type: 'done', reference: 'library/x:1', destination: './rootfs' },
];

for (const columns of [40, 80, 200]) {
  test(`terminal: at ${columns} columns the bars are drawn below the lines, and gone at the end`, async () => {
    const bare = new Screen(columns, 24);
    const text = textReport(bare.stream);
    for (const event of [...fetching, ...applying, ...ending]) text(event);

    const screen = new Screen(columns, 24);
    const live = terminalReport(screen.stream, true);
    const report = fanOut([live.report, textReport(screen.stream)]);
    for (const event of fetching) report(event);
    await screen.redrawn();
    const during = await screen.text();
    assert.match(during, /aaaaaaaaaaaa.* 50%/);
    assert.match(during, /20\.0 MiB of 80\.0 MiB/);
    for (const event of applying) report(event);
    await screen.redrawn();
    assert.match(await screen.text(), /^\s+aaaaaaaaaaaa \.\.\. ?$/m);
    for (const event of ending) report(event);
    live.stop();
    assert.equal(await screen.text(), await bare.text());
  });
}

test('terminal: one without a known size, such as a serial console, has 80 columns and 24 rows', async () => {
  const screen = new Screen(80, 24);
  Object.assign(screen.stream, { columns: 0, rows: 0 });
  const live = terminalReport(screen.stream, true);
  const report = fanOut([live.report, textReport(screen.stream)]);
  for (const event of fetching) report(event);
  await screen.redrawn();
  const during = await screen.text();
  assert.equal(during.match(/^ {2}a{12} .* 50%.*\n {2}b{12} /gm)?.length, 1, during);
  for (const event of [...applying, ...ending]) report(event);
  live.stop();
  assert.doesNotMatch(await screen.text(), /%|MiB|unpack/);
});

for (const [from, to] of [
  [80, 40],
  [200, 30],
  [40, 120],
] as const) {
  test(`terminal: nothing stale stays when it is resized from ${from} to ${to} columns`, async () => {
    const screen = new Screen(from, 24);
    const live = terminalReport(screen.stream, true);
    const report = fanOut([live.report, textReport(screen.stream)]);
    for (const event of fetching) report(event);
    await screen.redrawn();
    await screen.resize(to);
    await screen.redrawn();
    const during = await screen.text();
    assert.equal(during.match(/^ {2}a{12}/gm)?.length, 1, during);
    assert.equal(during.match(/50%/g)?.length, 1, during);
    assert.equal(during.match(/20\.0 MiB of 80\.0 MiB/g)?.length, 1, during);
    for (const event of applying) report(event);
    await screen.redrawn();
    await screen.resize(from);
    await screen.redrawn();
    for (const event of ending) report(event);
    live.stop();
    const text = await screen.text();
    assert.doesNotMatch(text, /%|MiB|unpack/);
    assert.match(text, /^ +aaaaaaaaaaaa \.\.\. done$[^]*^Rootfs of library\/x:1 in \.\/rootfs$/m);
  });
}
