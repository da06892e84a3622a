import { parentPath } from './directories.ts';
import type { Place } from './filesystem.ts';
import { PathSet } from './path-set.ts';

/** The paths that a run has written, and which of them the current layer wrote. */
export class WrittenPaths {
  /** Paths that this run made; only for an overlay or a case-insensitive file system. */
  readonly #made: PathSet | undefined;
  /** Paths that this layer wrote, and the directories above them: its whiteouts do not hide them. */
  readonly #layer = new PathSet();
  /** Directories in which this layer has hidden the entries of lower layers. */
  readonly #hidden = new PathSet();
  /** dlrootfs's own files at the root, not the image's: `json`, `layersize`. */
  readonly #own = new Set<string>();
  /** A directory whose path and all paths above it are in `#layer`. */
  #marked: string | undefined;
  /** The first layer is being applied: whiteouts hide nothing. */
  #isFirstLayer = true;

  /** @param keepsMade `isMade` will be called */
  constructor(keepsMade: boolean) {
    this.#made = keepsMade ? new PathSet() : undefined;
  }

  get isFirstLayer(): boolean {
    return this.#isFirstLayer;
  }

  /**
   * Records that this layer wrote `place`, so that none of its whiteouts hides it, nor a directory above it.
   *
   * @param isNew it was created, not merged with an existing directory
   */
  add({ parent, path }: Place, isNew: boolean): void {
    if (isNew) this.#made?.add(path);
    if (this.#own.size > 0 && parent.path === '') this.#own.delete(path);
    if (this.#isFirstLayer) return;
    this.#layer.add(path);
    if (parent.path === this.#marked) return;
    this.#marked = parent.path;
    for (let above: string = parent.path; above !== '' && this.#layer.add(above);) above = parentPath(above);
  }

  /** Records a file of dlrootfs's own at the root. */
  addOwn(name: string): void {
    this.#own.add(name);
  }

  isOwn(name: string): boolean {
    return this.#own.has(name);
  }

  /** Returns true if this run made it; undefined if that is not recorded. */
  isMade(path: string): boolean | undefined {
    return this.#made?.has(path);
  }

  isOfLayer(path: string): boolean {
    return this.#layer.has(path);
  }

  /** Returns false from the second call in a layer on. */
  hide(directory: string): boolean {
    return this.#hidden.add(directory);
  }

  /** Forgets the paths that the layer wrote, so that they can be hidden. `nextLayer` is still to come. */
  forgetLayer(): void {
    this.#layer.clear();
    this.#hidden.clear();
    this.#marked = undefined;
  }

  nextLayer(): void {
    this.#isFirstLayer = false;
  }
}
