import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { constants, userInfo } from 'node:os';
import path from 'node:path';
import { argv, execArgv, execPath, getegid, geteuid, getuid } from 'node:process';
import { isSea } from 'node:sea';
import type { Duplex } from 'node:stream';
import { promisify } from 'node:util';
import { DestinationError, InterruptedError, printable, UsageError } from '../errors.ts';
import { findForeignOwners } from '../rootfs/foreign-owner.ts';
import type { IDMappings } from '../runtime/runc.ts';
import { findProgram, type Environment } from '../sys/os-path.ts';
import { parseId, parsePasswd } from '../sys/passwd.ts';
import { type IDMapping, idMappings, systemText, USERNS_VARIABLE } from '../sys/privileges.ts';
import type { CliContext } from './context.ts';
import type { Invocation } from './program.ts';

/** The descriptor on which the shell inside reports its start, and is told that its ids are mapped. */
const HANDSHAKE = 3;
/**
 * The script of the shell inside: it reports its start, waits until its ids are mapped, and executes the
 * program.
 */
const WAITING = `echo >&${HANDSHAKE} && read -r _ <&${HANDSHAKE} && exec "$@" ${HANDSHAKE}<&-`;

/** The start of all errors here. */
const CANNOT = 'cannot use --userns';

/**
 * Runs the command in a user namespace if --userns is given, or if DIR was made with it: only there such a
 * tree can be read and replaced as a whole.
 *
 * @param words the command line
 * @returns the exit code of the run inside; undefined if this run is to continue
 * @throws UsageError if the system or the account lacks something; DestinationError for a DIR that this user
 * cannot replace
 */
export async function enterUserNamespace(
  invocation: Invocation,
  words: readonly string[],
  context: CliContext,
): Promise<number | undefined> {
  const { environment, signal } = context;
  const { userns, destination = '.', replace } = invocation.values;
  if (userns === true) return await runInUserNamespace(words, environment, signal);
  const [users, groups] = [rangesOf('/etc/subuid'), rangesOf('/etc/subgid')];
  const isMapped = ({ uid, gid }: { uid: number; gid: number }) => isIn(users, uid) || isIn(groups, gid);
  const { wanted, closed } = await findForeignOwners(destination, accounts(), isMapped, signal);
  const shown = printable(destination);
  if (wanted !== undefined) {
    return await runInUserNamespace(['--userns', ...words], environment, signal).catch((error: unknown) => {
      if (!(error instanceof UsageError)) throw error;
      const { message, code, hint } = error;
      const whose = `cannot use ${shown} without root: its owners are those of --userns`;
      throw new DestinationError(message.replace(CANNOT, whose), { code, hint, cause: error });
    });
  }
  if (closed === undefined || replace === undefined) return undefined;
  const { uid } = closed;
  throw new DestinationError(`cannot replace ${shown}: ${closed.path} in it belongs to user ${uid}`, {
    code: 'NOT_REPLACEABLE',
    hint:
      'run as root, or, if it was made with --userns, ' +
      `give yourself the range of ids that has ${uid} in /etc/subuid and /etc/subgid`,
  });
}

/**
 * Runs the command line in a new user namespace, in which the caller is root and the ids of /etc/subuid and
 * /etc/subgid follow: user_namespaces(7). The run inside has the terminal, input and outputs of this one.
 *
 * @returns its exit code
 * @throws UsageError if the system or the account lacks something
 */
async function runInUserNamespace(
  words: readonly string[],
  environment: Environment,
  signal: AbortSignal,
): Promise<number> {
  const [unshare, newuidmap, newgidmap] = ['unshare', 'newuidmap', 'newgidmap'].map((name) =>
    programNamed(name, environment),
  );
  const uids = mappings('/etc/subuid', geteuid!());
  const gids = mappings('/etc/subgid', getegid!());
  const odd = words.find((word) => !word.isWellFormed());
  if (odd !== undefined)
    throw new UsageError(`${CANNOT}: ${printable(odd)} is not UTF-8`, {
      hint: 'use another name, or leave out --userns',
    });
  const program = isSea() ? [execPath] : [execPath, ...execArgv, argv[1]!];
  const child = spawn(unshare!, ['--user', '--', '/bin/sh', '-c', WAITING, 'sh', ...program, ...words], {
    // Node's channel tells the run inside about signals, and about the end of this process.
    stdio: ['inherit', 'inherit', 'inherit', 'pipe', 'ipc'],
    env: { ...environment, [USERNS_VARIABLE]: '1' },
  });
  const handshake = child.stdio[HANDSHAKE] as Duplex;
  handshake.on('error', () => undefined);
  const ended = endOf(child);
  const forward = (): void => {
    const { reason } = signal as { readonly reason: unknown };
    if (child.connected) child.send(reason instanceof InterruptedError ? reason.signal : 'SIGTERM');
  };
  try {
    await made(handshake, ended);
    await assign(newuidmap!, child.pid!, uids);
    await assign(newgidmap!, child.pid!, gids);
    handshake.write('\n');
  } catch (error) {
    handshake.destroy();
    await ended;
    throw error;
  }
  if (signal.aborted) forward();
  signal.addEventListener('abort', forward);
  return await ended;
}

/** Returns the id mappings of this process's user namespace. */
export function ownMappings(): IDMappings {
  return { uids: idMappings('uid_map'), gids: idMappings('gid_map') };
}

/** Returns the mappings: root inside is the caller, and the caller's ranges follow, as with podman. */
function mappings(file: string, own: number): IDMapping[] {
  const { username } = caller();
  const ranges = rangesOf(file);
  if (ranges.length === 0) {
    const free = freeRange();
    throw new UsageError(`${CANNOT}: ${printable(username)} has no range of ids in ${file}`, {
      code: 'NO_ID_RANGE',
      hint: `add ranges as root: usermod --add-subuids ${free} --add-subgids ${free} ${username}`,
    });
  }
  const all: IDMapping[] = [{ containerID: 0, hostID: own, size: 1 }];
  let containerID = 1;
  for (const { hostID, size } of ranges) {
    all.push({ containerID, hostID, size });
    containerID += size;
  }
  return all;
}

/** newuidmap(1) looks the caller up by name too. */
function caller(): { readonly username: string; readonly uid: number } {
  try {
    return userInfo();
  } catch {
    throw new UsageError(`${CANNOT}: user id ${getuid!()} has no name in /etc/passwd`, {
      code: 'NO_USER_NAME',
      hint: 'add the user, with ranges in /etc/subuid and /etc/subgid, or use -o FILE.tar, which keeps the owners',
    });
  }
}

type IDRange = Omit<IDMapping, 'containerID'>;

/** SUB_UID_MIN and SUB_UID_COUNT of login.defs(5), when it has none. */
const FIRST_ID = 100_000;
const RANGE_IDS = 65_536;

/** Returns the user ids in passwd(5), root's and the caller's. */
function accounts(): Set<number> {
  const users = parsePasswd(systemText('/etc/passwd'));
  return new Set([geteuid!(), 0, ...users.map(({ uid }) => uid)]);
}

function isIn(ranges: readonly IDRange[], id: number): boolean {
  return ranges.some(({ hostID, size }) => id >= hostID && id < hostID + size);
}

/** A line of subuid(5): a name or a user id, and a range. */
interface RangeLine extends IDRange {
  readonly user: string;
}

function linesOf(file: string): RangeLine[] {
  let text = '';
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    return [];
  }
  return text.split('\n').flatMap((line) => {
    const [user = '', first, count] = line.split(':');
    const [hostID, size] = [parseId(first), parseId(count?.trim())];
    return hostID !== undefined && size !== undefined && size > 0 ? [{ user, hostID, size }] : [];
  });
}

/** Returns the caller's ranges; none for a user without a name. */
function rangesOf(file: string): IDRange[] {
  try {
    const { username, uid } = userInfo();
    return linesOf(file).filter(({ user }) => user === username || user === String(uid));
  } catch {
    return [];
  }
}

/** Returns a range of user and group ids that nobody has, as usermod(8) takes it: ranges must not overlap. */
function freeRange(): string {
  const taken = ['/etc/subuid', '/etc/subgid'].flatMap((file) => linesOf(file));
  const first = Math.max(FIRST_ID, ...taken.map(({ hostID, size }) => hostID + size));
  return `${first}-${first + RANGE_IDS - 1}`;
}

function programNamed(name: string, environment: Environment): string {
  const found = findProgram(name, environment, ['/usr/bin', '/bin', '/usr/sbin', '/sbin']);
  if (found !== undefined) return found;
  const packages = name === 'unshare' ? 'util-linux' : 'uidmap (Debian, Ubuntu) or shadow-utils (Fedora)';
  throw new UsageError(`${CANNOT}: ${name} was not found`, {
    code: 'NO_USERNS_PROGRAM',
    hint: `install the package ${packages}`,
  });
}

/**
 * Waits until the shell inside reports its start.
 *
 * @throws UsageError if it ended before
 */
async function made(handshake: Duplex, ended: Promise<number>): Promise<void> {
  const ready = new Promise<'ready'>((resolve) => {
    handshake.once('data', () => resolve('ready'));
  });
  if ((await Promise.race([ready, ended])) === 'ready') return;
  throw new UsageError(`${CANNOT}: the system does not let this user make a user namespace`, {
    code: 'NO_USERNS',
    hint:
      'see sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone and ' +
      'kernel.apparmor_restrict_unprivileged_userns, leave a chroot, or run as root',
  });
}

/** Maps ids by newuidmap(1) or newgidmap(1). */
async function assign(program: string, child: number, ids: readonly IDMapping[]): Promise<void> {
  const numbers = ids.flatMap(({ containerID, hostID, size }) => [containerID, hostID, size]);
  try {
    await promisify(execFile)(program, [child, ...numbers].map(String));
  } catch (error) {
    const said = (error as { stderr?: string }).stderr?.trim().split('\n')[0] ?? '';
    throw new UsageError(`${CANNOT}: ${path.basename(program)} failed: ${printable(said)}`, {
      code: 'NO_ID_RANGE',
      hint: `check /etc/subuid and /etc/subgid, and that ${program} is setuid root or has its capability`,
    });
  }
}

/** Returns the exit code, or 128 plus the number of the signal, as shells do. */
async function endOf(child: ChildProcess): Promise<number> {
  return await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => resolve(code ?? 128 + constants.signals[signal!]));
  });
}
