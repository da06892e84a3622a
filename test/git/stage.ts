import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  lchownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import type { ChangeLog } from '../../src/rootfs/changes.ts';
import type { Entry } from '../../src/tar/entry.ts';
import { blank } from '../support/blank.ts';

type Written = Pick<Entry, 'type' | 'mode' | 'uid' | 'gid' | 'mtimeSeconds' | 'mtimeNanoseconds' | 'xattrs'>;
type Metadata = Partial<Omit<Written, 'type'>>;

/**
 * A rootfs that a test makes, and the changes that the applier would report. Paths have one character per
 * byte.
 */
export class Stage {
  readonly path: string;
  readonly #done: ((changes: ChangeLog) => void)[] = [];
  #count = 0;
  readonly #directories = new Map<string, Written>();

  constructor(path: string) {
    this.path = path;
    mkdirSync(path, { recursive: true });
  }

  /** Reports the changes since the last call. */
  tell(changes: ChangeLog): void {
    for (const tell of this.#done.splice(0)) tell(changes);
    changes.flush();
  }

  root(metadata: Metadata = {}): this {
    return this.#note('directory', '', { mode: 0o755, ...metadata });
  }

  directory(path: string, metadata: Metadata = {}): this {
    mkdirSync(this.place(path), { recursive: true });
    return this.#note('directory', path, { mode: 0o755, ...metadata });
  }

  file(path: string, content: string | Uint8Array = `content of ${path}\n`, metadata: Metadata = {}): this {
    const bytes = typeof content === 'string' ? Buffer.from(content, 'latin1') : content;
    if (this.#stands(path)) rmSync(this.place(path));
    writeFileSync(this.place(path), bytes);
    return this.#note('file', path, { mode: 0o644, ...metadata }, bytes);
  }

  symlink(path: string, target: string, metadata: Metadata = {}): this {
    if (this.#stands(path)) rmSync(this.place(path));
    symlinkSync(Buffer.from(target, 'latin1'), this.place(path));
    return this.#note('symlink', path, { mode: 0o777, ...metadata }, Buffer.from(target, 'latin1'));
  }

  hardlink(path: string, linkPath: string): this {
    if (this.#stands(path)) rmSync(this.place(path));
    linkSync(this.place(linkPath), this.place(path));
    this.#done.push((changes) => changes.written(path, { ...blank, type: 'hardlink' }, linkPath));
    return this;
  }

  fifo(path: string, metadata: Metadata = {}): this {
    execFileSync('mkfifo', [`${this.path}/${path}`]);
    return this.#note('fifo', path, { mode: 0o644, ...metadata });
  }

  remove(path: string): this {
    rmSync(this.place(path), { recursive: true });
    this.#done.push((changes) => changes.removed(path));
    return this;
  }

  /** Sets the times of directories again, as the applier does at the end. */
  settle(): this {
    for (const [path, { mtimeSeconds, mtimeNanoseconds }] of this.#directories) {
      if (!this.#stands(path) || !lstatSync(this.place(path)).isDirectory()) continue;
      this.#date(path, mtimeSeconds, mtimeNanoseconds);
    }
    return this;
  }

  place(path: string): Buffer {
    return Buffer.concat([Buffer.from(`${this.path}/`), Buffer.from(path, 'latin1')]);
  }

  /** Sets the time of a path. Node's calls drop nanoseconds, and take a negative time for the present one. */
  #date(path: string, seconds: number, nanoseconds: number): void {
    if (nanoseconds === 0 && seconds >= 0) lutimesSync(this.place(path), seconds, seconds);
    else
      execFileSync('touch', [
        '-h',
        '-d',
        `@${seconds}.${String(nanoseconds).padStart(9, '0')}`,
        `${this.path}/${path}`,
      ]);
  }

  #stands(path: string): boolean {
    try {
      lstatSync(this.place(path));
      return true;
    } catch {
      return false;
    }
  }

  #note(type: Written['type'], path: string, metadata: Metadata, content?: Uint8Array): this {
    const change: Written = { ...blank, mtimeSeconds: 1_600_000_000 + this.#count, ...metadata, type };
    this.#count += 1;
    const place = this.place(path);
    if (type === 'symlink') lchownSync(place, change.uid, change.gid);
    else {
      chownSync(place, change.uid, change.gid);
      chmodSync(place, change.mode);
    }
    for (const [name, value] of change.xattrs ?? []) {
      const hex = `0x${Buffer.from(value).toString('hex')}`;
      execFileSync('setfattr', ['-h', '-n', name, '-v', hex, `${this.path}/${path}`]);
    }
    this.#date(path, change.mtimeSeconds, change.mtimeNanoseconds);
    if (type === 'directory') this.#directories.set(path, change);
    this.#done.push((changes) => {
      if (content) changes.contents.write(content);
      changes.written(path, change, '');
    });
    return this;
  }
}
