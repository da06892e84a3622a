import { constants } from 'node:os';
import { type SystemCalls, systemCalls } from './system-calls.ts';

/** The version of Landlock that binds the calling thread, or the reason why none does. */
export type Confinement = { readonly version: number } | { readonly reason: string };

/** Rights to files that linux/landlock.h names, less those to read: executing, writing, removing, making. */
const FILE_RIGHTS = {
  EXECUTE: 1 << 0,
  WRITE_FILE: 1 << 1,
  REMOVE_DIR: 1 << 4,
  REMOVE_FILE: 1 << 5,
  MAKE_CHAR: 1 << 6,
  MAKE_DIR: 1 << 7,
  MAKE_REG: 1 << 8,
  MAKE_SOCK: 1 << 9,
  MAKE_FIFO: 1 << 10,
  MAKE_BLOCK: 1 << 11,
  MAKE_SYM: 1 << 12,
} as const;
const FIRST_VERSION = Object.values(FILE_RIGHTS).reduce((all, right) => all | right, 0);
/** Links and renames from one directory to another: version 2. */
const REFER = 1 << 13;
/** Version 3. */
const TRUNCATE = 1 << 14;

const { E2BIG, ENOSYS, EOPNOTSUPP, EPERM } = constants.errno;
const UNCONFINED_REASONS: Readonly<Record<number, string>> = {
  [E2BIG]: 'this process is confined 16 times already (E2BIG)',
  [ENOSYS]: 'this kernel has no Landlock (ENOSYS)',
  [EOPNOTSUPP]: 'Landlock was not enabled when the system was started (EOPNOTSUPP)',
  [EPERM]: 'the system forbids Landlock (EPERM)',
};

/** Flag of landlock_create_ruleset(2). */
const ASK_VERSION = 1;
/** Type of a rule. */
const PATH_BENEATH = 1;
const PR_SET_NO_NEW_PRIVS = 38;

/** Sizes of struct landlock_ruleset_attr and struct landlock_path_beneath_attr, in bytes. */
const RULESET_BYTES = 8;
const RULE_BYTES = 12;
/** For the two structs. It lasts as long as the thread: no garbage collection frees it during a call. */
const memory = Buffer.alloc(128);

/**
 * Returns the rights that a version of Landlock can take away. It returns none for version 1 (Linux 5.13 to
 * 5.18), which forbids every link from one directory to another, and images have such links.
 */
export function rightsOf(version: number): number {
  if (version < 2) return 0;
  return FIRST_VERSION | REFER | (version < 3 ? 0 : TRUNCATE);
}

/**
 * Gives up, for the calling thread and the threads that it starts, every right to make, write, remove,
 * rename, link, truncate or execute files (landlock(7)). Files that are open can still be written. Landlock
 * does not govern changes of owner, mode, times and attributes.
 *
 * @param except an open directory: all of this stays allowed beneath it
 */
export function giveUpWriting(except?: number, calls: SystemCalls | undefined = systemCalls()): Confinement {
  if (!calls) return { reason: 'system calls cannot be made here' };
  const version = calls.landlock_create_ruleset(0, 0, ASK_VERSION);
  const rights = rightsOf(version);
  if (rights === 0) return { reason: version < 0 ? reasonOfErrno(version) : 'Landlock is of version 1' };
  const address = calls.address(memory);
  memory.writeBigUInt64LE(BigInt(rights), 0);
  const ruleset = calls.landlock_create_ruleset(address, RULESET_BYTES, 0);
  if (ruleset < 0) return { reason: reasonOfErrno(ruleset) };
  try {
    if (except !== undefined) {
      const rule = RULESET_BYTES;
      memory.writeBigUInt64LE(BigInt(rights), rule);
      memory.writeInt32LE(except, rule + RULE_BYTES - 4);
      const added = calls.landlock_add_rule(ruleset, PATH_BENEATH, address + rule, 0);
      if (added < 0) return { reason: reasonOfErrno(added) };
    }
    // landlock_restrict_self needs it or CAP_SYS_ADMIN. It binds this thread, which starts no program.
    calls.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    const restricted = calls.landlock_restrict_self(ruleset, 0);
    return restricted < 0 ? { reason: reasonOfErrno(restricted) } : { version };
  } finally {
    calls.close(ruleset);
  }
}

function reasonOfErrno(failure: number): string {
  return UNCONFINED_REASONS[-failure] ?? `Landlock failed with errno ${-failure}`;
}
