import { GitError, printable } from '../errors.ts';
import { composeLine, parseLine, type Written } from '../tar/mtree.ts';
import type { TreeFile } from './fast-import.ts';
import type { Inode, Place, RootfsState } from './rootfs-state.ts';
import { isTreeType, treeFile } from './tree.ts';
import { isHoldable } from './tree-path.ts';

/** What came to a path. */
export interface Came {
  readonly path: string;
  readonly inode: Inode;
}

/** What one layer did, on its way to become a commit and a record. */
export class LayerDraft {
  readonly #state: RootfsState;
  /** Paths that git holds and that went, in the order in which they did. */
  readonly deletions: string[] = [];
  /** Paths of files and symlinks that came; some may be gone again. */
  readonly #came = new Set<string>();
  /** Path of a file that git cannot hold → its name in the record's tree. */
  readonly #kept = new Map<string, string>();
  readonly #lines: string[];

  /** @param title the record's first lines */
  constructor(state: RootfsState, title: string) {
    this.#state = state;
    this.#lines = [title];
  }

  /**
   * Plays lines of `composeLine`, all before any content is read: what a path had in between is of no interest.
   *
   * @throws GitError when they are not the changes of this rootfs
   */
  play(lines: string): void {
    let copied = 0;
    let start = 0;
    for (let end = lines.indexOf('\n'); end !== -1; start = end + 1, end = lines.indexOf('\n', start)) {
      const change = parseLine(lines.slice(start, end));
      const gone = this.#apply(change);
      if (gone && !(isTreeType(gone.inode.type) && (change.type === 'file' || change.type === 'symlink'))) {
        this.deletions.push(change.path);
      }
      if (change.type !== 'file' && change.type !== 'symlink' && change.type !== 'hardlink') continue;
      this.#came.add(change.path);
      if (isHoldable(change.path, 'file') || this.#state.find(change.path)?.inode.type !== 'file') continue;
      this.#lines.push(lines.slice(copied, start), composeLine({ ...change, contents: this.#keep(change) }));
      copied = end + 1;
    }
    this.#lines.push(lines.slice(copied, start));
  }

  /** Files and symlinks that came, are there still, and have no content yet. */
  unstored(): Came[] {
    return this.#present().filter(
      ({ path, inode }) =>
        inode.id === undefined &&
        (inode.type === 'file' || (inode.type === 'symlink' && isHoldable(path, 'symlink'))),
    );
  }

  /** What the commit gets. All contents must be stored. */
  files(): TreeFile[] {
    return this.#present().flatMap(({ path, inode }) => treeFile(path, inode) ?? []);
  }

  /** What the record's tree gets besides the record. */
  *keptFiles(): Generator<TreeFile, void, void> {
    for (const [path, name] of this.#kept) {
      const id = this.#state.find(path)?.inode.id;
      if (id !== undefined) yield { path: name, mode: '100644', id };
    }
  }

  /** The record, one character a byte. */
  record(): string {
    return this.#lines.join('');
  }

  #keep({ path }: Written): string {
    const name = this.#kept.get(path) ?? `files/${this.#kept.size}`;
    this.#kept.set(path, name);
    return name;
  }

  #apply(change: ReturnType<typeof parseLine>): Place | undefined {
    try {
      return this.#state.apply(change);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new GitError(
        `the changes of the layer do not fit together at ${printable(change.path)}: ${error.message}`,
        {
          code: 'GIT_CHANGES',
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
