/** What a branch is named and dated by. */
export interface LayerIdentity {
  /** 64 hex digits. */
  readonly id: string;
  /** When the layer was made (RFC 3339), where the image says so. */
  readonly created?: string | undefined;
}

/** A record's path in the tree of its commit. */
export const recordPath = 'record.mtree';

/** The directory in that tree of contents that no commit can hold. */
export const keptFiles = 'files';

/** Where the refs of the records are. */
export const recordRefs = 'refs/dlrootfs/';
const branches = 'refs/heads/';
const branchPattern = /^layer(0|[1-9]\d{0,8})_([0-9a-f]{64})$/;

/** `layer3_04c5…`, as the original named it; layers count from 0. */
export function branchName(number: number, id: string): string {
  return `layer${number}_${id}`;
}

/** Number and id in a branch's name, undefined for a branch that is not ours. */
export function parseBranchName(name: string): { readonly number: number; readonly id: string } | undefined {
  const match = branchPattern.exec(name);
  return match ? { number: Number(match[1]), id: match[2]! } : undefined;
}

export function branchRef(name: string): string {
  return branches + name;
}

/** The ref of what git cannot hold of a branch. */
export function recordRef(name: string): string {
  return recordRefs + name;
}

/** The branch that a record's ref belongs to. */
export function branchOfRecord(ref: string): string {
  return ref.slice(recordRefs.length);
}

/** First lines of a record. */
export function composeTitle(branch: string): string {
  return `#mtree, by dlrootfs: what ${branch} did to the rootfs, in this order\n`;
}

/** Seconds since 1970 of a layer's date, so that pulling an image twice gives the same commits; without a good one, now. */
export function commitTime({ created }: LayerIdentity): number {
  const milliseconds = created === undefined ? Number.NaN : Date.parse(created);
  if (Number.isNaN(milliseconds)) return Math.floor(Date.now() / 1000);
  // git has no date before 1970.
  return Math.max(0, Math.floor(milliseconds / 1000));
}
