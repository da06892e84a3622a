/** Counts, by kind, of metadata and entries that the system did not let dlrootfs restore. */
export interface NotRestored {
  /** Entries whose owner or group differs from the image. */
  owners: number;
  /** Devices (on some systems also FIFOs), and hard links to them, that could not be made. */
  devices: number;
  /** Extended attributes, without capabilities. */
  xattrs: number;
  /** Files without their `security.capability`. */
  capabilities: number;
  /** Files that lost setuid or setgid together with their owner. */
  setuid: number;
  /** Entries whose time is not exact to the nanosecond. */
  times: number;
  /** Files and directories whose mode comes from the file system. */
  modes: number;
  /** Names that the file system treats as an existing one, such as `A` and `a`. */
  collisions: number;
  /** Entries that would have replaced the root by a file that is not a directory. */
  ignored: number;
}

/** Singular and plural, in the order of the message. */
const WORDS: Readonly<Record<keyof NotRestored, readonly [one: string, many: string]>> = {
  devices: ['device', 'devices'],
  owners: ['owner', 'owners'],
  capabilities: ['capability', 'capabilities'],
  setuid: ['setuid bit', 'setuid bits'],
  xattrs: ['extended attribute', 'extended attributes'],
  times: ['exact time', 'exact times'],
  modes: ['mode', 'modes'],
  collisions: ['name that differs from another only in case', 'names that differ from others only in case'],
  ignored: ['entry for the root that is no directory', 'entries for the root that are no directory'],
};
const COUNTED = Object.keys(WORDS) as (keyof NotRestored)[];
/** Kinds that root would be allowed; with --userns all of them but devices. */
const PRIVILEGED: ReadonlySet<keyof NotRestored> = new Set(['devices', 'owners', 'capabilities', 'setuid']);

export function nothingLost(): NotRestored {
  return Object.fromEntries(COUNTED.map((kind) => [kind, 0])) as unknown as NotRestored;
}

/**
 * Returns one line about the counts, or undefined if all of them are 0.
 *
 * @param root the run had the rights of root, so running as root is no advice
 */
export function notRestoredText(counts: Readonly<NotRestored>, root: boolean): string | undefined {
  const lost = COUNTED.filter((kind) => counts[kind] > 0);
  if (lost.length === 0) return undefined;
  const parts = lost.map((kind) => `${counts[kind]} ${WORDS[kind][counts[kind] === 1 ? 0 : 1]}`);
  const denied = lost.filter((kind) => PRIVILEGED.has(kind));
  const mapped = denied.some((kind) => kind !== 'devices') ? ', or with --userns for all but devices' : '';
  const advice =
    !root && (denied.length > 0 || counts.xattrs > 0) ? `: run as root for the image as it is${mapped}` : '';
  return `${parts.join(', ')} not restored${advice}`;
}
