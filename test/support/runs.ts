const wanted = process.env['DLROOTFS_RUNS'];

/** DLROOTFS_RUNS is set: tables are gone through whole, random trials and moments are many. */
export const isThorough = wanted !== undefined;

/**
 * Returns the number of random trials: `few` in `make test`; with DLROOTFS_RUNS that number, at least `many`.
 */
export function runs(few: number, many: number): number {
  return isThorough ? Math.max(many, Number(wanted)) : few;
}
