import { createRequire } from 'node:module';
import { platform } from 'node:os';

interface Calls {
  llistxattr(path: string, list: Uint8Array | null, size: number): number;
  lgetxattr(path: string, name: string, value: Uint8Array | null, size: number): number;
  lsetxattr(path: string, name: string, value: Uint8Array, size: number, flags: number): number;
}

let calls: Calls | undefined;

function libc(): Calls {
  if (calls) return calls;
  const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
  const library = koffi.load(null);
  calls = {
    llistxattr: library.func('intptr_t llistxattr(const char *path, void *list, size_t size)'),
    lgetxattr: library.func(
      'intptr_t lgetxattr(const char *path, const char *name, void *value, size_t size)',
    ),
    lsetxattr: library.func(
      'int lsetxattr(const char *path, const char *name, const void *value, size_t size, int flags)',
    ),
  };
  return calls;
}

/**
 * Returns the extended attributes of `path` itself (a symlink is not followed), sorted by name; none if the
 * system has none.
 */
export function readXattrs(path: string): [name: string, value: Buffer][] {
  if (platform() !== 'linux') return [];
  const list = Buffer.alloc(65_536);
  const length = libc().llistxattr(path, list, list.length);
  if (length <= 0) return [];
  const names = list.toString('latin1', 0, length - 1).split('\0');
  return names.toSorted().map((name) => {
    const value = Buffer.alloc(65_536);
    const size = libc().lgetxattr(path, name, value, value.length);
    return [name, value.subarray(0, Math.max(0, size))];
  });
}

/** Sets an extended attribute of `path` itself; false if the system refuses. */
export function writeXattr(path: string, name: string, value: Uint8Array | string): boolean {
  const bytes = Buffer.from(value);
  return libc().lsetxattr(path, name, bytes, bytes.length, 0) === 0;
}
