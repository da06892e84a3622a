/**
 * A tree in memory, and the effect of layers on it by the rules of OCI: slow, simple, and without code under
 * test.
 */
import * as archive from '../support/archive.ts';
import type { Item } from '../support/archive.ts';
import { permissions } from '../support/tree.ts';

export interface Meta {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: readonly [seconds: number, nanoseconds: number];
  readonly xattrs: Readonly<Record<string, string>>;
}

export type Operation =
  | { readonly kind: 'directory' | 'fifo'; readonly path: string; readonly meta: Meta }
  | { readonly kind: 'file'; readonly path: string; readonly meta: Meta; readonly content: string }
  | {
      readonly kind: 'symlink' | 'hardlink';
      readonly path: string;
      readonly meta: Meta;
      readonly target: string;
    }
  | { readonly kind: 'whiteout' | 'opaque'; readonly path: string };

interface Directory {
  readonly type: 'directory';
  meta: Meta;
  /** All names, each with the number of the layer that wrote it last. */
  readonly names: Map<string, { thing: Thing; layer: number }>;
}

type Thing =
  | Directory
  | { readonly type: 'file'; readonly meta: Meta; readonly content: string }
  | { readonly type: 'symlink'; readonly meta: Meta; readonly target: string }
  | { readonly type: 'fifo'; readonly meta: Meta };

/** The tree does not allow the operation, so it is no part of the archive. */
class Senseless extends Error {}

const plain = (mtime: Meta['mtime']): Meta => ({ mode: 0o755, uid: 0, gid: 0, mtime, xattrs: {} });

export class Model {
  readonly root: Directory = { type: 'directory', meta: plain([0, 0]), names: new Map() };
  #layer = -1;
  /** Undoes the steps of the current operation. */
  #undo: (() => void)[] = [];

  /** Applies a layer; returns the entries of its archive: the operations that the tree allows. */
  apply(operations: readonly Operation[]): Item[] {
    this.#layer += 1;
    return operations.flatMap((operation) => {
      this.#undo = [];
      try {
        return [this.#place(operation)];
      } catch (error) {
        if (!(error instanceof Senseless)) throw error;
        for (const undo of this.#undo.toReversed()) undo();
        return [];
      }
    });
  }

  #place(operation: Operation): Item {
    const { path } = operation;
    const name = path.slice(path.lastIndexOf('/') + 1);
    const above = path.slice(0, Math.max(0, path.lastIndexOf('/')));
    switch (operation.kind) {
      case 'whiteout': {
        const parent = this.#directory(above);
        if (parent) this.#hide(parent, name);
        return archive.whiteout(path);
      }
      case 'opaque': {
        const directory = this.#directory(path);
        if (directory) for (const inner of directory.names.keys()) this.#hide(directory, inner);
        return archive.opaque(path);
      }
      case 'hardlink': {
        const place = this.#directory(above, operation.meta.mtime)!;
        const [parent, thing] = this.#linkTarget(operation.target);
        if (place === parent && operation.target.endsWith(name)) throw new Senseless();
        const there = place.names.get(name)?.thing;
        if (there?.type === 'directory' && contains(there, thing)) throw new Senseless();
        place.names.set(name, { thing, layer: this.#layer });
        return archive.hardlink(path, operation.target, operation.meta);
      }
      case 'directory': {
        const place = this.#directory(above, operation.meta.mtime)!;
        const there = place.names.get(name)?.thing;
        if (there?.type === 'directory') there.meta = operation.meta;
        const thing = there?.type === 'directory' ? there : newDirectory(operation.meta);
        place.names.set(name, { thing, layer: this.#layer });
        return archive.dir(path, operation.meta);
      }
      case 'file':
        return this.#put(
          above,
          name,
          { type: 'file', meta: operation.meta, content: operation.content },
          archive.file(path, operation.content, operation.meta),
        );
      case 'symlink':
        return this.#put(
          above,
          name,
          { type: 'symlink', meta: { ...operation.meta, mode: 0o777 }, target: operation.target },
          archive.symlink(path, operation.target, operation.meta),
        );
      case 'fifo':
        break;
    }
    return this.#put(above, name, { type: 'fifo', meta: operation.meta }, archive.fifo(path, operation.meta));
  }

  #put(above: string, name: string, thing: Thing, item: Item): Item {
    this.#directory(above, thing.meta.mtime)!.names.set(name, { thing, layer: this.#layer });
    return item;
  }

  #linkTarget(target: string): [Directory, Thing] {
    const parent = this.#directory(target.slice(0, Math.max(0, target.lastIndexOf('/'))));
    const thing = parent?.names.get(target.slice(target.lastIndexOf('/') + 1))?.thing;
    if (!parent || !thing || thing.type === 'directory') throw new Senseless();
    return [parent, thing];
  }

  /** Removes the files of lower layers. Files of this layer remain, with the directories above them. */
  #hide(parent: Directory, name: string): void {
    const entry = parent.names.get(name);
    if (!entry) return;
    if (!this.#isTouched(entry)) parent.names.delete(name);
    else if (entry.thing.type === 'directory') {
      for (const inner of entry.thing.names.keys()) this.#hide(entry.thing, inner);
    }
  }

  #isTouched({ thing, layer }: { thing: Thing; layer: number }): boolean {
    if (layer === this.#layer) return true;
    return thing.type === 'directory' && [...thing.names.values()].some((inner) => this.#isTouched(inner));
  }

  /** The directory at a path after chroot; with `mtime`, missing ones are made. */
  #directory(path: string, mtime?: Meta['mtime']): Directory | undefined {
    const stack: Directory[] = [this.root];
    const rest = path.split('/');
    for (let links = 0; rest.length > 0;) {
      const name = rest.shift()!;
      const current = stack.at(-1)!;
      if (name === '' || name === '.') continue;
      if (name === '..') {
        if (stack.length > 1) stack.pop();
        continue;
      }
      const thing = current.names.get(name)?.thing;
      if (thing?.type === 'directory') stack.push(thing);
      else if (thing?.type === 'symlink') {
        links += 1;
        if (links > 40) throw new Senseless();
        if (thing.target.startsWith('/')) stack.length = 1;
        rest.unshift(...thing.target.split('/'));
      } else if (mtime === undefined) return undefined;
      else if (thing && links > 0) throw new Senseless();
      else {
        const made = newDirectory(plain(mtime));
        const before = current.names.get(name);
        current.names.set(name, { thing: made, layer: this.#layer });
        this.#undo.push(() => (before ? current.names.set(name, before) : current.names.delete(name)));
        stack.push(made);
      }
    }
    return stack.at(-1);
  }

  /** Prints the tree as `printTree` does, with `text`. */
  print(options: { readonly owners: boolean; readonly xattrs: boolean }): string {
    const counts = new Map<Thing, number>();
    const groups = new Map<Thing, number>();
    const lines: [string, string][] = [];
    const count = (directory: Directory): void => {
      for (const { thing } of directory.names.values()) {
        counts.set(thing, (counts.get(thing) ?? 0) + 1);
        if (thing.type === 'directory') count(thing);
      }
    };
    const walk = (directory: Directory, prefix: string): void => {
      for (const [name, { thing }] of [...directory.names].toSorted(([one], [other]) =>
        one < other ? -1 : 1,
      )) {
        const path = prefix + name;
        const { mode, uid, gid, mtime, xattrs } = thing.meta;
        const letter = { directory: 'd', file: '-', symlink: 'l', fifo: 'p' }[thing.type];
        const fields = [letter + permissions(mode)];
        if (options.owners) fields.push(`${uid}:${gid}`);
        fields.push(
          `${mtime[0]}.${String(mtime[1]).padStart(9, '0')}`,
          thing.type === 'directory' ? `${path}/` : path,
        );
        if (thing.type === 'file') fields.push(JSON.stringify(thing.content));
        if (thing.type === 'symlink') fields.push('->', thing.target);
        if (counts.get(thing)! > 1) {
          if (!groups.has(thing)) groups.set(thing, groups.size + 1);
          fields.push(`=${groups.get(thing)}`);
        }
        const pairs = Object.entries(xattrs).toSorted(([one], [other]) => (one < other ? -1 : 1));
        if (options.xattrs && pairs.length > 0) {
          fields.push(
            `{${pairs.map(([key, value]) => `${key}=${Buffer.from(value).toString('hex')}`).join(' ')}}`,
          );
        }
        lines.push([path, fields.join(' ')]);
        if (thing.type === 'directory') walk(thing, `${path}/`);
      }
    };
    count(this.root);
    walk(this.root, '');
    return lines
      .toSorted(([one], [other]) => (one < other ? -1 : 1))
      .map(([, line]) => `${line}\n`)
      .join('');
  }
}

function newDirectory(meta: Meta): Directory {
  return { type: 'directory', meta, names: new Map() };
}

function contains(directory: Directory, thing: Thing): boolean {
  return [...directory.names.values()].some(
    (inner) => inner.thing === thing || (inner.thing.type === 'directory' && contains(inner.thing, thing)),
  );
}
