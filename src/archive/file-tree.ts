import { IntegrityError } from '../errors.ts';
import { accessListBytes, textKeys, type FindId } from '../tar/access-list.ts';
import { type BytePath, displayPath, type Entry, noBytes } from '../tar/entry.ts';
import { classify, isPseudoLink, normalize } from '../tar/layer-path.ts';
import type { Inode, Node } from './node.ts';
import { findDirectory } from './resolve.ts';

/**
 * The tree that layers make, without the contents: OCI's layer rules (image-spec, layer.md) as the rootfs on disk applies them, but
 * in memory, so that a file can be replaced before anyone has written it.
 */
export class FileTree {
  readonly root: Node;
  /** Entries for the root that are no directory, which are left out. */
  ignored = 0;
  #layer = -1;
  #ordinal = 0;
  /** What has access lists with names, of this layer. */
  readonly #named = new Set<Inode>();
  #pseudoLinks = new Map<string, Inode>();

  constructor() {
    this.root = {
      inode: implicitDirectory(0, 0),
      parent: undefined,
      name: '',
      children: new Map(),
      layer: -1,
    };
  }

  /** Begins the next layer: base layer first. */
  startLayer(): void {
    this.#layer += 1;
    this.#ordinal = 0;
    this.#pseudoLinks = new Map();
  }

  /** Gives numbers to the names in this layer's access lists; who is not known keeps the name. */
  numberNamedLists(find: FindId): void {
    for (const inode of this.#named) {
      inode.xattrs = new Map(
        [...(inode.xattrs ?? [])].map(([key, value]) => {
          const name = textKeys.get(key);
          const bytes = name && accessListBytes(Buffer.from(value).toString('latin1'), find);
          return name && bytes ? [name, bytes] : [key, value];
        }),
      );
    }
    this.#named.clear();
  }

  /**
   * Applies the layer's next entry.
   *
   * @returns what it is on its own, wherever it went
   * @throws IntegrityError for a path or link that leads nowhere, and for a malformed whiteout
   */
  apply(entry: Entry): Inode {
    const inode: Inode = {
      entry,
      xattrs: entry.xattrs,
      layer: this.#layer,
      ordinal: this.#ordinal,
      linked: false,
    };
    this.#ordinal += 1;
    this.#waitForNames(inode);
    this.#play(inode);
    return inode;
  }

  #play(inode: Inode): void {
    const { entry } = inode;
    const meaning = classify(entry.path);
    switch (meaning.kind) {
      case 'entry':
        if (meaning.path !== '') this.#place(inode, meaning.path);
        else if (entry.type === 'directory') this.root.inode = inode;
        else this.ignored += 1;
        return;
      case 'whiteout': {
        if (this.#layer === 0) return;
        const [parent, name] = this.#find(meaning.path);
        const hidden = parent?.children?.get(name);
        if (hidden !== undefined) this.#hide(hidden);
        return;
      }
      case 'opaque': {
        if (this.#layer === 0) return;
        const directory = findDirectory(this.root, meaning.path);
        for (const child of directory?.children?.values() ?? []) this.#hide(child);
        return;
      }
      default: // aufs
        if (entry.type === 'file' && isPseudoLink(meaning.path)) this.#pseudoLinks.set(meaning.path, inode);
    }
  }

  #place(inode: Inode, path: BytePath): void {
    const { entry } = inode;
    const cut = path.lastIndexOf('/');
    const name = path.slice(cut + 1);
    const parent = findDirectory(this.root, path.slice(0, Math.max(0, cut)), (above, missing) =>
      this.#put(above, missing, implicitDirectory(entry.mtimeSeconds, entry.mtimeNanoseconds)),
    )!;
    if (entry.type === 'hardlink') return this.#link(entry, parent, name);
    const there = parent.children!.get(name);
    if (entry.type === 'directory' && there?.children !== undefined) {
      there.inode = inode;
      this.#mark(there);
    } else this.#put(parent, name, inode);
  }

  /** A second name. Owner, mode and times are the file's, whatever the entry says; its attributes are added. */
  #link(entry: Entry, parent: Node, name: string): void {
    const wanted = normalize(entry.linkPath);
    const pseudo = this.#pseudoLinks.get(wanted);
    if (pseudo !== undefined) return this.#putAgain(entry, pseudo, parent, name);
    const target = this.#target(entry, wanted);
    const there = parent.children!.get(name);
    // A link to itself changes nothing.
    if (there === target) return this.#mark(target);
    if (target.children !== undefined) throw badLink(entry, 'it is a directory');
    parent.children!.delete(name);
    // What was replaced may have been the directory that the target is in.
    const { inode } = there?.children === undefined ? target : this.#target(entry, wanted);
    this.#putAgain(entry, inode, parent, name);
  }

  #putAgain(entry: Entry, inode: Inode, parent: Node, name: string): void {
    if (entry.xattrs !== undefined) inode.xattrs = new Map([...(inode.xattrs ?? []), ...entry.xattrs]);
    this.#waitForNames(inode);
    inode.linked = true;
    this.#put(parent, name, inode);
  }

  #target(entry: Entry, wanted: BytePath): Node {
    const [parent, name] = this.#find(wanted);
    const target = wanted === noBytes ? this.root : parent?.children?.get(name);
    if (target === undefined) throw badLink(entry, 'it does not exist');
    return target;
  }

  /** The directory of a normalised path, if there is one, and the name in it. */
  #find(path: BytePath): [Node | undefined, string] {
    const cut = path.lastIndexOf('/');
    return [findDirectory(this.root, path.slice(0, Math.max(0, cut))), path.slice(cut + 1)];
  }

  #waitForNames(inode: Inode): void {
    for (const key of textKeys.keys()) if (inode.xattrs?.has(key) === true) this.#named.add(inode);
  }

  #put(parent: Node, name: string, inode: Inode): Node {
    const children = inode.entry.type === 'directory' ? new Map<string, Node>() : undefined;
    const node: Node = { inode, parent, name, children, layer: this.#layer };
    parent.children!.set(name, node);
    this.#mark(parent);
    return node;
  }

  #mark(node: Node): void {
    for (let at: Node | undefined = node; at !== undefined && at.layer !== this.#layer; at = at.parent) {
      at.layer = this.#layer;
    }
  }

  /** Takes away what lower layers have at a node: all of it, or what this layer has not touched. */
  #hide(node: Node): void {
    const pending = [node];
    for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
      if (at.layer !== this.#layer) at.parent!.children!.delete(at.name);
      else for (const child of at.children?.values() ?? []) pending.push(child);
    }
  }
}

/** A directory that a path needs and no entry has made: 0755, root's, with the time of the entry that needs it. */
function implicitDirectory(mtimeSeconds: number, mtimeNanoseconds: number): Inode {
  const entry: Entry = {
    type: 'directory',
    path: noBytes,
    linkPath: noBytes,
    mode: 0o755,
    uid: 0,
    gid: 0,
    size: 0,
    mtimeSeconds,
    mtimeNanoseconds,
    deviceMajor: 0,
    deviceMinor: 0,
    xattrs: undefined,
    sparse: undefined,
  };
  return { entry, xattrs: undefined, layer: -1, ordinal: -1, linked: false };
}

function badLink(entry: Entry, why: string): IntegrityError {
  return new IntegrityError(`cannot link to ${displayPath(entry.linkPath)}: ${why}`, {
    code: 'BAD_LINK',
    hint: 'the layer is malformed, ask whoever built the image',
  });
}
