import { geteuid } from 'node:process';
import { systemAttribute } from '../rootfs/metadata.ts';
import { mayDo, ownersToGive } from '../sys/privileges.ts';
import { accessList, defaultAccessList, isPlainList, textKeys } from '../tar/access-list.ts';
import { type Comparable, type ComparedXattrs, noXattrs, type Rules, type Xattrs } from './differences.ts';
import type { DiskTree } from './disk-tree.ts';

/** The owner that chown(2) does not give to anything. */
const NOBODY = 0xffff_ffff;
const SET_ID_BITS = 0o6000;
const BILLION = 1_000_000_000;
/** makedev(3): devices beyond have no number. */
const LARGEST = { major: 0xfff, minor: 0xf_ffff } as const;
/** The first and last seconds that file systems have, also for all times before and after: ext4 with small and large inodes, xfs. */
const EARLIEST: ReadonlySet<number> = new Set([-(2 ** 31), 0]);
const LATEST: ReadonlySet<number> = new Set([2 ** 31 - 1, 2 ** 32 - 1, 0x3_7fff_ffff, 16_299_260_424]);

const nothing: ComparedXattrs = { needed: noXattrs, allowed: noXattrs, found: noXattrs };

/** What a directory need not have of an image: what this process could not have given to files there, and the file system does not keep. */
export class DiskRules implements Rules {
  readonly #mayGiveTo = ownersToGive();
  readonly #mayMakeDevices = mayDo('mknod');
  readonly #mayAdminister = mayDo('sysAdmin');
  readonly #maySetCapabilities = mayDo('setfcap');
  readonly #isPortable: boolean;
  /** How the names of attributes begin that the file system takes. */
  readonly #kept: readonly string[];
  /** Who files may belong to where their owner could not be given to them. */
  readonly #owners: ReadonlySet<number>;
  /** The file system keeps times in multiples of so many nanoseconds: the finest that was seen. */
  #precision: number;

  constructor(disk: DiskTree) {
    const { root, isPortable } = disk;
    const namespaces = ['user.', 'trusted.', 'security.'].filter((each) =>
      disk.keepsXattr(`${each}dlrootfs`),
    );
    this.#kept = [...namespaces, ...[accessList, defaultAccessList].filter((each) => disk.keepsXattr(each))];
    this.#owners = new Set([geteuid?.() ?? root.uid, root.uid]);
    this.#isPortable = isPortable;
    this.#precision = precisionOf(root.ctimeNanoseconds);
  }

  /** Whether a path may be missing. */
  readonly mayLack = ({ type, deviceMajor, deviceMinor }: Comparable): boolean => {
    if (type === 'fifo') return this.#isPortable;
    if (type !== 'character' && type !== 'block') return false;
    const isPossible = deviceMajor <= LARGEST.major && deviceMinor <= LARGEST.minor;
    return this.#isPortable || !isPossible || !this.#mayMakeDevices;
  };

  hasMode(expected: Comparable, found: Comparable): boolean {
    if (found.mode === expected.mode) return true;
    // Without its access list a file has the mode that its entry says, which nobody knows any more.
    if (expected.xattrs?.has(accessList) === true && !this.#kept.includes(accessList)) return true;
    const isOther = found.uid !== expected.uid || found.gid !== expected.gid;
    return isOther && this.hasOwner(expected, found) && found.mode === (expected.mode & ~SET_ID_BITS);
  }

  hasOwner(expected: Comparable, found: Comparable): boolean {
    if (isId(expected.uid, found.uid) && isId(expected.gid, found.gid)) return true;
    return !this.#mayGiveTo(expected.uid, expected.gid) && this.#owners.has(found.uid);
  }

  hasTime(expected: Comparable, found: Comparable): boolean {
    this.#precision = Math.min(this.#precision, precisionOf(found.mtimeNanoseconds));
    const [wanted, there] = [expected.mtimeSeconds, found.mtimeSeconds];
    if (wanted !== there) return (wanted < there ? EARLIEST : LATEST).has(there);
    const { mtimeNanoseconds } = expected;
    if (mtimeNanoseconds === found.mtimeNanoseconds) return true;
    // Node sets times in microseconds.
    const precision = this.#isPortable ? Math.max(this.#precision, 1000) : this.#precision;
    return found.mtimeNanoseconds === mtimeNanoseconds - (mtimeNanoseconds % precision);
  }

  xattrs(expected: Comparable, found: Comparable): ComparedXattrs {
    if (!expected.xattrs && !found.xattrs) return nothing;
    const there = new Map([...(found.xattrs ?? noXattrs)].filter(([name]) => !systemAttribute.test(name)));
    const allowed = [...(expected.xattrs ?? noXattrs)].filter(
      ([name, value]) => !systemAttribute.test(name) && !textKeys.has(name) && !isNoList(name, value),
    );
    const needed: Xattrs = new Map(allowed.filter(([name]) => this.#mayGive(name, expected, found)));
    return { needed, allowed: new Map(allowed), found: there };
  }

  /** Whether this process could have given a file the attribute, and can see it: xattr(7). */
  #mayGive(name: string, { type }: Comparable, { mode }: Comparable): boolean {
    if (!this.#kept.some((start) => name.startsWith(start))) return false;
    const hasContent = type === 'file' || type === 'directory';
    if (name.startsWith('user.')) return hasContent && (this.#mayAdminister || (mode & 0o400) !== 0);
    if (name === 'security.capability') return type === 'file' && this.#maySetCapabilities;
    if (name.startsWith('trusted.') || name.startsWith('security.')) return this.#mayAdminister;
    return name === accessList ? type !== 'symlink' : name === defaultAccessList && type === 'directory';
  }
}

function isId(wanted: number, found: number): boolean {
  return wanted === found || wanted === NOBODY;
}

/** A list that says no more than the mode: the kernel keeps none. */
function isNoList(name: string, value: Uint8Array): boolean {
  return name === accessList && isPlainList(value);
}

/** The coarsest precision that a file system keeps and in which it can have this time. */
function precisionOf(nanoseconds: number): number {
  return [BILLION, 10_000_000, 1_000_000, 1000, 100].find((each) => nanoseconds % each === 0) ?? 1;
}
