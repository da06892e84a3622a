import { median, type Results } from './results.ts';
import type { Row } from './rows.ts';

export const tableHead = `| row | candidate | wall s | min–max | cpu s | rss MiB | dlrootfs against it: measured (goal) |
| --- | --- | --- | --- | --- | --- | --- |
`;

/** Returns the lines of one row: one per candidate. */
export function tableLines(row: Row, results: Results): string {
  let lines = '';
  for (const { name, cores } of row.candidates) {
    const samples = results.get(name);
    if (samples === undefined) {
      lines += `| ${row.name} | ${name} | ${cores === undefined ? 'not here' : 'skipped: too few processors'} | | | | |\n`;
      continue;
    }
    const walls = samples.map((sample) => sample.wallSeconds);
    const failed = samples.find((sample) => sample.exitCode !== 0);
    const goals = row.goals
      .filter((goal) => goal.candidate === name)
      .map(({ what, value, atMost, unit }) => {
        const measured = value(results);
        if (measured === undefined) return `${what} not measured (${atMost})`;
        const digits = unit === 'MiB' ? 0 : 2;
        const verdict = measured <= atMost ? 'met' : 'missed';
        return `${what} ${measured.toFixed(digits)} (≤ ${atMost}${unit ? ` ${unit}` : ''}) ${verdict}`;
      });
    const cells = [
      row.name,
      failed ? `${name} (exit ${failed.exitCode})` : name,
      seconds(median(results, 'wallSeconds', name)),
      `${seconds(Math.min(...walls))}–${seconds(Math.max(...walls))}`,
      seconds(median(results, 'cpuSeconds', name)),
      (median(results, 'rssMiB', name) ?? NaN).toFixed(0),
      goals.join('; '),
    ];
    lines += `| ${cells.join(' | ')} |\n`;
  }
  return lines;
}

function seconds(value: number | undefined): string {
  return value === undefined ? '' : value.toFixed(value < 1 ? 3 : 2);
}
