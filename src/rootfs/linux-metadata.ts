import { constants } from 'node:os';
import type { CallMemory } from './call-memory.ts';
import type { Node } from './filesystem.ts';
import type { Libc } from './libc.ts';
import { AT_SYMLINK_NOFOLLOW, calls, openPath } from './linux-numbers.ts';

const { ENAMETOOLONG, ENOSYS, EPERM } = constants.errno;

/** In bytes: of a value, and of all names together (xattr(7)). */
const largestAttribute = 64 * 1024;

/** The half of the file system that sets owners, modes, times and attributes, by libc's calls. */
export class LinuxMetadata {
  protected readonly libc: Libc;
  protected readonly memory: CallMemory;
  #knowsFchmodat2 = true;
  #attribute: Buffer | undefined;

  protected constructor(libc: Libc, memory: CallMemory) {
    this.libc = libc;
    this.memory = memory;
  }

  setOwner(node: Node, uid: number, gid: number): number {
    if (node.file >= 0) return this.result(this.libc.fchown(node.file, uid, gid));
    this.memory.putName(node.name);
    return this.result(
      this.libc.fchownat(node.parent.handle, this.memory.name, uid, gid, AT_SYMLINK_NOFOLLOW),
    );
  }

  setMode(node: Node, mode: number): number {
    if (node.file >= 0) return this.result(this.libc.fchmod(node.file, mode));
    if (node.name === '.') return this.#setModeByHandle(node.parent.handle, mode);
    if (this.#knowsFchmodat2) {
      this.memory.putName(node.name);
      const { handle } = node.parent;
      const result = this.result(
        this.libc.syscall(calls.fchmodat2, handle, this.memory.name, mode, AT_SYMLINK_NOFOLLOW),
      );
      // A seccomp filter that does not know the call answers EPERM.
      if (result !== -ENOSYS && result !== -EPERM) return result;
      if (result === -ENOSYS) this.#knowsFchmodat2 = false;
    }
    this.memory.putName(node.name);
    const file = this.libc.openat(node.parent.handle, this.memory.name, openPath, 0);
    if (file < 0) return -this.libc.errno();
    const result = this.#setModeByHandle(file, mode);
    this.libc.close(file);
    return result;
  }

  /** The way for a descriptor that was opened with O_PATH, which fchmod(2) does not take. */
  #setModeByHandle(handle: number, mode: number): number {
    this.memory.putName(`/proc/self/fd/${handle}`);
    return this.result(this.libc.chmod(this.memory.name, mode));
  }

  setTimes(node: Node, seconds: number, nanoseconds: number): number {
    this.memory.putTimes(seconds, nanoseconds);
    if (node.file >= 0) return this.result(this.libc.futimens(node.file, this.memory.structure));
    this.memory.putName(node.name);
    return this.result(
      this.libc.utimensat(node.parent.handle, this.memory.name, this.memory.structure, AT_SYMLINK_NOFOLLOW),
    );
  }

  setXattr(node: Node, name: string, value: Uint8Array): number {
    if (!this.memory.putSecond(name)) return -ENAMETOOLONG;
    if (node.file >= 0) {
      return this.result(this.libc.fsetxattr(node.file, this.memory.second, value, value.length, 0));
    }
    this.memory.putName(`/proc/self/fd/${node.parent.handle}/${node.name}`);
    return this.result(this.libc.lsetxattr(this.memory.name, this.memory.second, value, value.length, 0));
  }

  hasXattr(node: Node, name: string): boolean {
    this.memory.putSecond(name);
    this.memory.putName(`/proc/self/fd/${node.parent.handle}/${node.name}`);
    return this.libc.lgetxattr(this.memory.name, this.memory.second, 0, 0) >= 0;
  }

  readXattrs(node: Node): Map<string, Uint8Array> | number {
    const buffer = (this.#attribute ??= Buffer.alloc(largestAttribute));
    const address = this.libc.address(buffer);
    this.memory.putName(`/proc/self/fd/${node.parent.handle}/${node.name}`);
    const length = this.result(this.libc.llistxattr(this.memory.name, address, buffer.length));
    if (length < 0) return length;
    const names = buffer.toString('latin1', 0, length).split('\0').slice(0, -1);
    const values = new Map<string, Uint8Array>();
    for (const name of names) {
      this.memory.putSecond(name);
      const size = this.libc.lgetxattr(this.memory.name, this.memory.second, address, buffer.length);
      // One that is gone again, or that only the kernel may read, is none.
      if (size >= 0) values.set(name, Uint8Array.prototype.slice.call(buffer, 0, size));
    }
    return values;
  }

  removeXattr(node: Node, name: string): number {
    if (!this.memory.putSecond(name)) return -ENAMETOOLONG;
    if (node.file >= 0) return this.result(this.libc.fremovexattr(node.file, this.memory.second));
    this.memory.putName(`/proc/self/fd/${node.parent.handle}/${node.name}`);
    return this.result(this.libc.lremovexattr(this.memory.name, this.memory.second));
  }

  /** What a call answered, or the negated errno. */
  protected result(answer: number): number {
    return answer < 0 ? -this.libc.errno() : answer;
  }
}
