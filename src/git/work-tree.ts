import type { Found } from './inspection.ts';
import type { RootfsState } from './rootfs-state.ts';

/** The hands that change a rootfs where git's do not reach. */
export interface WorkTree {
  /** Takes away what stands at these paths, directories only when they are empty by then. */
  clear(leftovers: readonly Found[]): void;
  /**
   * Makes all that is in `state` as it says, over what git has written: types, owners, modes, attributes, links, times.
   *
   * @param contents files to be moved to where git cannot write: path where they belong → path where they are
   * @param attributes names of extended attributes that stay only where `state` has them
   */
  restore(state: RootfsState, contents: ReadonlyMap<string, string>, attributes: ReadonlySet<string>): void;
}

export type OpenWorkTree = (directory: string) => WorkTree;
