import { GitError, printable } from '../errors.ts';
import type { ObjectID } from './trees.ts';
import type { RootfsFiles } from './rootfs-files.ts';
import { damaged } from './git-error.ts';

/** Most bytes of `HEAD` or of a file with one ref, of `packed-refs`, and most refs: beyond them a repository is an attack. */
const LARGEST_REF = 4096;
const LARGEST_PACKED_REFS = 64 * 1024 * 1024;
const MOST_REFS = 200_000;
/** How many branches an error names. */
const LONGEST_LIST = 10;

/** What is checked out: a branch, or a commit. */
export type Head = { readonly ref: string } | { readonly id: ObjectID };

/**
 * The refs of a repository, by their full names: `refs/heads/…`.
 *
 * @throws GitError where a file of them is damaged, or is not a regular file
 */
export function readRefs(files: RootfsFiles): Map<string, ObjectID> {
  const refs = readPackedRefs(files);
  const waiting = ['.git/refs'];
  for (let directory = waiting.pop(); directory !== undefined; directory = waiting.pop()) {
    for (const name of files.list(directory)) {
      const path = `${directory}/${name}`;
      const ref = nameOfRef(path.slice('.git/'.length));
      const type = files.stat(path)?.type;
      if (type === 'directory') waiting.push(path);
      else if (ref !== undefined && type !== undefined) {
        const text = files.read(path, LARGEST_REF)?.toString('latin1').trimEnd();
        if (text === undefined || text.startsWith('ref: ')) continue;
        if (!isID(text)) throw damaged(`cannot read ${files.place(path)}: it names no object`);
        refs.set(ref, text);
      }
      if (refs.size + waiting.length > MOST_REFS) {
        throw damaged(`cannot read ${files.place('.git/refs')}: it holds more than ${MOST_REFS} refs`);
      }
    }
  }
  return refs;
}

function readPackedRefs(files: RootfsFiles): Map<string, ObjectID> {
  const refs = new Map<string, ObjectID>();
  const text = files.read('.git/packed-refs', LARGEST_PACKED_REFS)?.toString('latin1') ?? '';
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#') || line.startsWith('^')) continue;
    const id = line.slice(0, 40);
    const ref = nameOfRef(line.slice(41));
    if (!isID(id) || line[40] !== ' ')
      throw damaged(`cannot read ${files.place('.git/packed-refs')}: a line of it names no ref`);
    if (ref !== undefined) refs.set(ref, id);
  }
  return refs;
}

/** @throws GitError where `HEAD` is missing, damaged, or not a regular file */
export function readHead(files: RootfsFiles): Head {
  const text = files.read('.git/HEAD', LARGEST_REF)?.toString('latin1').trimEnd() ?? '';
  if (isID(text)) return { id: text };
  const ref = text.startsWith('ref: ') ? nameOfRef(text.slice('ref: '.length).trimStart()) : undefined;
  if (ref !== undefined) return { ref };
  throw damaged(
    `cannot read ${files.place('.git/HEAD')}: ${text === '' ? 'it is missing or empty' : 'it names no branch'}`,
  );
}

/**
 * The branch that is meant: by its name, a layer's number (`3`, `layer3`), or the beginning of a name that only one has.
 *
 * @throws GitError when there is none, or more than one
 */
export function resolveBranch(refs: ReadonlyMap<string, ObjectID>, wanted: string): string {
  const prefix = branchRef('');
  const names = [...refs.keys()]
    .filter((ref) => ref.startsWith(prefix))
    .map((ref) => ref.slice(prefix.length))
    .toSorted((one, other) => (one < other ? -1 : 1));
  if (names.includes(wanted)) return wanted;
  const number = /^(?:layer)?(\d+)$/.exec(wanted)?.[1];
  const matches = names.filter((name) =>
    number === undefined ? name.startsWith(wanted) : parseBranchName(name)?.number === Number(number),
  );
  if (matches.length === 1 && wanted !== '') return matches[0]!;
  const none = matches.length === 0 || wanted === '';
  const shown = (matches.length === 0 ? names : matches)
    .slice(0, LONGEST_LIST)
    .map((name) => printable(name));
  throw new GitError(
    none
      ? `branch ${printable(wanted)} does not exist`
      : `${printable(wanted)} could be ${matches.length} branches`,
    {
      code: 'GIT_NO_BRANCH',
      hint: `choose one of ${shown.join(', ')}${names.length > LONGEST_LIST ? ', …' : ''}`,
    },
  );
}

function isID(text: string): text is ObjectID {
  return /^[0-9a-f]{40}$/.test(text);
}

/** A ref's name, from bytes as characters; undefined for what git-check-ref-format(1) does not allow, or is not UTF-8. */
function nameOfRef(bytes: string): string | undefined {
  const name = Buffer.from(bytes, 'latin1').toString('utf8');
  // eslint-disable-next-line no-control-regex
  const isWrong = /^(?!refs\/)|[\0- ~^:?*[\\\x7f\ufffd]|\.\.|\/\/|\/$|(?:^|\/)\.|\.(?:lock)?(?:\/|$)|@\{/;
  return isWrong.test(name) ? undefined : name;
}

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

/** Number and id in a branch's name, undefined for a branch that dlrootfs did not make. */
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
