import type { Writable } from 'node:stream';
import type { LiveReport, PullEvent } from './event.ts';
import { type LayerProgress, Progress, progressText, formatBytes } from './progress.ts';

export interface TerminalStream extends Writable {
  readonly columns?: number;
  readonly rows?: number;
}

const REDRAW_MILLISECONDS = 100;
/** The columns of the original's unfinished line `<TAB><12 hex> ... `. */
const UNFINISHED_LINE_COLUMNS = 8 + 12 + 5;

/**
 * Draws bars on a terminal ten times per second, below all other lines, and erases them at the end. This
 * reporter must get events before the others: it erases its bars before they print.
 *
 * @param linesHere the original's lines go to the same terminal, so its unfinished line must be kept
 */
export function terminalReport(err: TerminalStream, linesHere: boolean): LiveReport {
  const progress = new Progress();
  let drawn: readonly string[] = [];
  let fetched = 0;
  let unfinished = false;
  let drawnBelowUnfinished = false;
  let timer: NodeJS.Timeout | undefined;

  // A serial console has 0 of both: it does not know its size.
  const columnsNow = () => err.columns || 80;
  /** A terminal that became narrower has wrapped the bars. */
  const erase = () => {
    if (drawn.length === 0) return;
    const columns = columnsNow();
    const rows = drawn.reduce((sum, { length }) => sum + Math.max(1, Math.ceil(length / columns)), 0);
    const behind = (UNFINISHED_LINE_COLUMNS % columns) + 1;
    const back = drawnBelowUnfinished ? `\u001b[1A\u001b[${behind}G` : '';
    err.write(`\u001b[${rows}A\u001b[J${back}`);
    drawn = [];
  };
  const draw = () => {
    erase();
    const rows = Math.max(2, Math.min(12, (err.rows || 24) - 2));
    drawn = renderBars(progress, Math.max(1, columnsNow() - 1), rows, performance.now());
    drawnBelowUnfinished = unfinished;
    // The cursor waits on an empty line: terminals differ in how they wrap the cursor's line.
    err.write(`${unfinished ? '\n' : ''}${drawn.join('\n')}\n`);
  };
  const follow = (event: PullEvent) => {
    if (event.type === 'layer-fetched') fetched += 1;
    const released = linesHere && fetched >= progress.layers.length;
    if (released) unfinished = progress.layers.some(({ state }) => state === 'applying');
  };

  return {
    report: (event) => {
      progress.add(event, performance.now());
      if (['layer-progress', 'layer-entries', 'disk-entries'].includes(event.type)) return;
      erase();
      follow(event);
      if (event.type === 'image') {
        // A comparison of two images sends this event several times.
        clearInterval(timer);
        timer = setInterval(draw, REDRAW_MILLISECONDS).unref();
      }
      if (event.type === 'done') clearInterval(timer);
    },
    stop: () => {
      clearInterval(timer);
      erase();
    },
  };
}

/**
 * Returns the lines of a running pull: one per layer that is downloaded or unpacked, and the sum. At most
 * `rows` lines, none wider than `columns`.
 */
export function renderBars(progress: Progress, columns: number, rows: number, now: number): string[] {
  const running = progress.layers.filter(({ state }) => state === 'fetching' || state === 'applying');
  const shown = running.slice(0, Math.max(0, rows - 1));
  const lines = shown.map((layer) => layerLine(layer, columns));
  return [...lines, progressText(progress, now, columns)];
}

const NARROWEST_BAR = 8;
const WIDEST_BAR = 40;

/** Returns the longest form that fits; numbers are never cut. */
function layerLine(layer: LayerProgress, columns: number): string {
  const { name, size, received, state } = layer;
  const fitting = (...forms: readonly string[]) => forms.find(({ length }) => length <= columns) ?? '';
  const short = name.slice(0, 4);
  if (state === 'applying' && (size === undefined || received >= size))
    return fitting(`  ${name}  unpacking`, `${short} unpacking`, short);
  if (size === undefined) {
    const amount = formatBytes(received);
    return fitting(`  ${name}  ${amount}`, `${short} ${amount}`, short);
  }
  const share = size === 0 ? 1 : Math.min(1, received / size);
  const percent = `${Math.floor(share * 100)}%`.padStart(4);
  const amount = formatBytes(size).padStart(9);
  const room = columns - name.length - percent.length - amount.length - 11;
  if (room < NARROWEST_BAR) return fitting(`  ${name} ${percent}`, `${short} ${percent}`, percent);
  const width = Math.min(WIDEST_BAR, room);
  const full = Math.floor(share * width);
  const bar = ('='.repeat(full) + (full < width ? '>' : '')).padEnd(width);
  return `  ${name}  [${bar}] ${percent} of ${amount}`;
}
