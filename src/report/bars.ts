import type { Writable } from 'node:stream';
import type { LiveReport, PullEvent } from './event.ts';
import { type LayerProgress, Progress, describeProgress, formatBytes } from './progress.ts';

export interface TerminalStream extends Writable {
  readonly columns?: number;
  readonly rows?: number;
}

const REDRAW_MILLISECONDS = 100;
/** The cursor's column after the original's unfinished line `<TAB><12 hex> ... `, counted from 1. */
const columnBehindUnfinishedLine = 8 + 12 + 5 + 1;

/**
 * Bars on a terminal, redrawn ten times per second below all other lines and erased at the end. `linesHere`: the original's
 * lines go to the same terminal, so its unfinished line must stay as it was. This report comes before the others: it
 * erases its bars before they print.
 */
export function terminalReport(err: TerminalStream, linesHere: boolean): LiveReport {
  const progress = new Progress();
  let drawn = 0;
  let fetched = 0;
  let unfinished = false;
  let drawnBelowUnfinished = false;
  let timer: NodeJS.Timeout | undefined;

  const erase = () => {
    if (drawn === 0) return;
    const toFirstLine = drawn > 1 ? `\u001b[${drawn - 1}A` : '';
    const back = drawnBelowUnfinished ? `\u001b[1A\u001b[${columnBehindUnfinishedLine}G` : '';
    err.write(`\r${toFirstLine}\u001b[J${back}`);
    drawn = 0;
  };
  const draw = () => {
    erase();
    const rows = Math.max(2, Math.min(12, (err.rows ?? 24) - 2));
    const lines = renderBars(progress, Math.max(10, (err.columns ?? 80) - 1), rows, performance.now());
    drawnBelowUnfinished = unfinished;
    err.write(`${unfinished ? '\n' : ''}${lines.join('\n')}`);
    drawn = lines.length;
  };
  const follow = (event: PullEvent) => {
    if (event.type === 'layer-fetched') fetched += 1;
    const released = linesHere && fetched >= progress.layers.length;
    if (released) unfinished = progress.layers.some(({ state }) => state === 'applying');
  };

  return {
    report: (event) => {
      progress.add(event, performance.now());
      if (event.type === 'layer-progress') return;
      erase();
      follow(event);
      if (event.type === 'image') timer = setInterval(draw, REDRAW_MILLISECONDS).unref();
      if (event.type === 'done') clearInterval(timer);
    },
    stop: () => {
      clearInterval(timer);
      erase();
    },
  };
}

/**
 * The lines of a running pull: one for each layer that is downloaded or unpacked, and one for the sum. At most `rows` lines,
 * none wider than `columns`.
 */
export function renderBars(progress: Progress, columns: number, rows: number, now: number): string[] {
  const running = progress.layers.filter(({ state }) => state === 'fetching' || state === 'applying');
  const shown = running.slice(0, Math.max(0, rows - 1));
  const lines = shown.map((layer) => layerLine(layer, columns));
  return [...lines, describeProgress(progress, now, columns)].map((line) => line.slice(0, columns));
}

const NARROWEST_BAR = 8;
const WIDEST_BAR = 40;

function layerLine(layer: LayerProgress, columns: number): string {
  const { name, size, received, state } = layer;
  if (state === 'applying' && (size === undefined || received >= size)) return `  ${name}  unpacking`;
  if (size === undefined) return `  ${name}  ${formatBytes(received)}`;
  const share = size === 0 ? 1 : Math.min(1, received / size);
  const percent = `${Math.floor(share * 100)}%`.padStart(4);
  const amount = formatBytes(size).padStart(9);
  const room = columns - name.length - percent.length - amount.length - 10;
  if (room < NARROWEST_BAR) return `  ${name} ${percent}`;
  const width = Math.min(WIDEST_BAR, room);
  const full = Math.floor(share * width);
  const bar = ('='.repeat(full) + (full < width ? '>' : '')).padEnd(width);
  return `  ${name}  [${bar}] ${percent} of ${amount}`;
}
