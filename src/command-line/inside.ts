import type { Environment } from '../options.ts';

/** Set by the run outside of --userns for the one that it starts in a user namespace. */
export const USERNS_VARIABLE = 'DLROOTFS_USERNS';

/** Whether this run is the one inside. */
export function isInUserNamespace(environment: Environment): boolean {
  return environment[USERNS_VARIABLE] !== undefined;
}
