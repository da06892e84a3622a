const wanted = process.env['DLROOTFS_RUNS'];

/** DLROOTFS_RUNS is set: tables are gone through whole, random trials and moments are many. */
export const isThorough = wanted !== undefined;

/** How often something random is tried: `few` times in `make test`; with DLROOTFS_RUNS so often, and at least `many` times. */
export function runs(few: number, many: number): number {
  return isThorough ? Math.max(many, Number(wanted)) : few;
}
