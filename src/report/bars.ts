import type { LayerProgress, Progress } from './progress.ts';
import { describeProgress, formatBytes } from './progress.ts';

/**
 * The picture of a running pull: a line for each layer that is being fetched or unpacked (at most `rows` lines in
 * all) and one for the whole; no line is wider than `columns`.
 */
export function renderBars(progress: Progress, columns: number, rows: number, now: number): string[] {
  const running = progress.layers.filter(({ state }) => state === 'fetching' || state === 'applying');
  const shown = running.slice(0, Math.max(0, rows - 1));
  const lines = shown.map((layer) => layerLine(layer, columns));
  return [...lines, describeProgress(progress, now, columns)].map((line) => line.slice(0, columns));
}

const narrowestBar = 8;
const widestBar = 40;

function layerLine(layer: LayerProgress, columns: number): string {
  const { name, size, received, state } = layer;
  if (state === 'applying' && (size === undefined || received >= size)) return `  ${name}  unpacking`;
  if (size === undefined) return `  ${name}  ${formatBytes(received)}`;
  const share = size === 0 ? 1 : Math.min(1, received / size);
  const percent = `${Math.floor(share * 100)}%`.padStart(4);
  const amount = formatBytes(size).padStart(9);
  const room = columns - name.length - percent.length - amount.length - 10;
  if (room < narrowestBar) return `  ${name} ${percent}`;
  const width = Math.min(widestBar, room);
  const full = Math.floor(share * width);
  const bar = ('='.repeat(full) + (full < width ? '>' : '')).padEnd(width);
  return `  ${name}  [${bar}] ${percent} of ${amount}`;
}
