import { IntegrityError } from '../errors.ts';
import { LARGEST_ACCOUNT_FILE } from '../sys/passwd.ts';
import { accountNames, type FindId } from '../tar/access-list.ts';
import type { AsyncTarReader } from '../tar/async-reader.ts';
import type { Inode, Node } from './node.ts';
import { findDirectory } from './resolve.ts';

/** Bytes of all files together; more is an attack on memory. */
const mostBytes = 4 * LARGEST_ACCOUNT_FILE;

/** The contents of files that may be the image's passwd or group: whoever the names in access lists are stands there. */
export class AccountFiles {
  readonly #contents = new Map<Inode, string>();
  #size = 0;

  /** Reads the file that the reader is at, if it is one. */
  async read(reader: AsyncTarReader, inode: Inode): Promise<void> {
    const { type, path, size, sparse } = inode.entry;
    if (type !== 'file' || sparse !== undefined || !/(?:^|\/)etc\/(?:passwd|group)$/.test(path)) return;
    if (size > LARGEST_ACCOUNT_FILE || this.#size + size > mostBytes) return;
    this.#size += size;
    let text = '';
    for (let bytes = await reader.data(); bytes !== undefined; bytes = await reader.data()) {
      text += Buffer.from(bytes).toString('latin1');
    }
    this.#contents.set(inode, text);
  }

  /** Who is who in the tree as it is now. */
  names(root: Node): FindId {
    return accountNames((file) => {
      const inode = accountDirectory(root)?.children?.get(file)?.inode;
      return inode && this.#contents.get(inode);
    });
  }
}

function accountDirectory(root: Node): Node | undefined {
  try {
    return findDirectory(root, 'etc');
  } catch (error) {
    // A loop of symlinks is an error only for what is to be put there.
    if (error instanceof IntegrityError) return undefined;
    throw error;
  }
}
