import type { Sample } from './sample.ts';

/** Samples by candidate, one per round; all candidates of a row have the same number. */
export type Results = ReadonlyMap<string, readonly Sample[]>;

export type Quantity = 'wallSeconds' | 'cpuSeconds' | 'rssMiB';

export function median(results: Results, quantity: Quantity, candidate: string): number | undefined {
  return middle((results.get(candidate) ?? []).map((sample) => sample[quantity]));
}

/** Returns the median over the rounds of `candidate` divided by the largest of `others` in the same round. */
export function ratio(
  results: Results,
  quantity: Quantity,
  candidate: string,
  ...others: readonly string[]
): number | undefined {
  const columns = others.map((name) => results.get(name));
  const ratios = (results.get(candidate) ?? []).map(
    (sample, round) =>
      sample[quantity] / Math.max(...columns.map((column) => column?.[round]?.[quantity] ?? NaN)),
  );
  return middle(ratios.filter((value) => Number.isFinite(value)));
}

function middle(values: readonly number[]): number | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length / 2;
  const [low, high] = [sorted[Math.ceil(half) - 1], sorted[Math.floor(half)]];
  return low === undefined || high === undefined ? undefined : (low + high) / 2;
}
