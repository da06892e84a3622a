/** How many things of each kind the system did not let dlrootfs restore. */
export interface NotRestored {
  /** Entries whose owner or group is another one than in the image. */
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
  /** Files and directories whose mode is what the file system gives them. */
  modes: number;
  /** Names that the file system treats as an existing one, such as `A` and `a`. */
  collisions: number;
  /** Entries that would have replaced the root by something other than a directory. */
  ignored: number;
}

export function nothingLost(): NotRestored {
  return {
    owners: 0,
    devices: 0,
    xattrs: 0,
    capabilities: 0,
    setuid: 0,
    times: 0,
    modes: 0,
    collisions: 0,
    ignored: 0,
  };
}

/** Singular and plural, in the order of the message; the first group is what root would be allowed. */
const privileged = [
  ['devices', 'device', 'devices'],
  ['owners', 'owner', 'owners'],
  ['capabilities', 'capability', 'capabilities'],
  ['setuid', 'setuid bit', 'setuid bits'],
] as const;
const unsupported = [
  ['xattrs', 'extended attribute', 'extended attributes'],
  ['times', 'exact time', 'exact times'],
  ['modes', 'mode', 'modes'],
  ['collisions', 'name that differs from another only in case', 'names that differ from others only in case'],
  ['ignored', 'entry for the root that is no directory', 'entries for the root that are no directory'],
] as const;

/**
 * One line about what is not in the rootfs as the image has it, or undefined when everything is.
 *
 * @param root whether the run had the rights of root, so that trying as root is no advice
 */
export function describeNotRestored(counts: Readonly<NotRestored>, root: boolean): string | undefined {
  const lost = [...privileged, ...unsupported].filter(([key]) => counts[key] > 0);
  if (lost.length === 0) return undefined;
  const parts = lost.map(([key, one, many]) => `${counts[key]} ${counts[key] === 1 ? one : many}`);
  const denied = privileged.filter(([key]) => counts[key] > 0);
  const mapped = denied.some(([key]) => key !== 'devices') ? ', or with --userns for all but devices' : '';
  const advice =
    !root && (denied.length > 0 || counts.xattrs > 0) ? `: run as root for the image as it is${mapped}` : '';
  return `${parts.join(', ')} not restored${advice}`;
}
