import { IntegrityError } from '../errors.ts';
import type { Layer } from '../oci/image.ts';
import { findFile } from './stored-files.ts';
import type { StoredFiles } from './stored-files.ts';

/** `Layer.open` for a blob that is a file of a layout; `size` is what the manifest says, where it says it. */
export function openStored(files: StoredFiles, path: string, size: number | undefined): Layer['open'] {
  return async (range, signal) => {
    const file = await findFile(files, path, 'a layer');
    if (size !== undefined && file.size !== size) {
      throw new IntegrityError(`${path} of ${files.name} has ${file.size} bytes but must have ${size}`, {
        code: 'SIZE_MISMATCH',
      });
    }
    const end = Math.min(range.end ?? file.size, file.size);
    return { body: file.read(range.start, end, signal), start: range.start, size: file.size, ranges: true };
  };
}
