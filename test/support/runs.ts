const wanted = process.env['DLROOTFS_RUNS'];

/** True with DLROOTFS_RUNS: tests use all rows of a table, and many random trials and moments. */
export const isThorough = wanted !== undefined;

/**
 * Returns the number of random trials: `few` in `make test`; the number in DLROOTFS_RUNS, but at least
 * `many`.
 */
export function runs(few: number, many: number): number {
  return isThorough ? Math.max(many, Number(wanted)) : few;
}
