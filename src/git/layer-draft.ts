import { GitError, printable } from '../errors.ts';
import { composeLine, parseLine, type Change, type Written } from '../tar/mtree.ts';
import { keptFiles } from './names.ts';
import type { TreeEntry } from './objects.ts';
import type { Inode, RootfsState } from './rootfs-state.ts';
import { isHoldable } from './tree-path.ts';

/** What came to a path. */
export interface Came {
  readonly path: string;
  readonly inode: Inode;
}

/** What one layer did, on its way to become a commit and a record. */
export class LayerDraft {
  readonly #state: RootfsState;
  /** Paths of files and symlinks that came; some may be gone again. */
  readonly #came = new Set<string>();
  /** Path of a file that git cannot hold → its name in the record's tree. */
  readonly #kept = new Map<string, string>();
  readonly #lines: string[] = [];
  /** Files and symlinks that layers brought, not taken yet. */
  #written: Inode[] = [];

  constructor(state: RootfsState) {
    this.#state = state;
  }

  /**
   * Plays lines of `composeLine`.
   *
   * @throws GitError when they are not the changes of this rootfs
   */
  play(bytes: Uint8Array): void {
    const lines = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
    let copied = 0;
    let start = 0;
    for (let end = lines.indexOf('\n'); end !== -1; start = end + 1, end = lines.indexOf('\n', start)) {
      const change = parseLine(lines.slice(start, end));
      this.#apply(change);
      if (change.type !== 'file' && change.type !== 'symlink' && change.type !== 'hardlink') continue;
      this.#came.add(change.path);
      const { inode } = this.#state.find(change.path)!;
      if (change.type !== 'hardlink' && change.own !== true) this.#written.push(inode);
      if (inode.type !== 'file') continue;
      if (isHoldable(change.path, 'file')) continue;
      this.#lines.push(lines.slice(copied, start), composeLine({ ...change, contents: this.#keep(change) }));
      copied = end + 1;
    }
    this.#lines.push(lines.slice(copied, start));
  }

  /** Files and symlinks that layers brought since the last call, in their order: some may be gone again. */
  takeWritten(): Inode[] {
    const written = this.#written;
    this.#written = [];
    return written;
  }

  /** Files and symlinks that came, are there still, and have no content yet. */
  unstored(): Came[] {
    return this.#present().filter(
      ({ path, inode }) =>
        inode.id === undefined &&
        (inode.type === 'file' || (inode.type === 'symlink' && isHoldable(path, 'symlink'))),
    );
  }

  /** Contents that the record's tree gets, in a directory `files`. All must be stored. */
  *keptFiles(): Generator<TreeEntry, void, void> {
    for (const [path, name] of this.#kept) {
      const id = this.#state.find(path)?.inode.id;
      if (id !== undefined) yield { name, mode: '100644', id };
    }
  }

  /** The record, one character a byte. */
  record(): string {
    return this.#lines.join('');
  }

  #keep({ path }: Written): string {
    const name = this.#kept.get(path) ?? String(this.#kept.size);
    this.#kept.set(path, name);
    return `${keptFiles}/${name}`;
  }

  #apply(change: Change): void {
    try {
      this.#state.apply(change);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new GitError(
        `the changes of the layer do not fit together at ${printable(change.path)}: ${error.message}`,
        {
          code: 'GIT_CHANGES',
          hint: 'pull it without -g, and report this with the name of the image',
          cause: error,
        },
      );
    }
  }

  #present(): Came[] {
    return [...this.#came].flatMap((path) => {
      const place = this.#state.find(path);
      return place ? [{ path, inode: place.inode }] : [];
    });
  }
}
