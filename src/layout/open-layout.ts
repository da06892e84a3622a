import { NotFoundError, UsageError, printable } from '../errors.ts';
import type { Decompress } from '../oci/compression.ts';
import type { Session } from '../oci/image.ts';
import { ArchiveFiles, type NamelessFile } from './archive-files.ts';
import { DirectoryFiles, type StoredFiles } from './stored-files.ts';
import { DockerArchive } from './docker-archive.ts';
import { OciLayout } from './oci-layout.ts';
import { formatSource, type Source } from './local-source.ts';

export interface LayoutOptions {
  /** An existing directory; compressed archives and standard input are unpacked to a nameless file in it. */
  readonly spoolDirectory: string;
  readonly decompress: Decompress;
  readonly namelessFile: NamelessFile;
  /** Needed for `-` only. */
  readonly stdin?: AsyncIterable<Uint8Array> | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Opens an image that is on this machine. Manifest and config are checked when the image is requested; the blobs of its layers by the code that
 * reads them.
 *
 * @throws NotFoundError where nothing like it is there, IntegrityError where the archive is damaged, UsageError for `-` without standard input
 */
export async function openLayout(source: Source, options: LayoutOptions): Promise<Session> {
  const files = await openFiles(source, options);
  try {
    return (await isDockerArchive(source, files))
      ? new DockerArchive(files, source.image)
      : new OciLayout(files, source.image);
  } catch (error) {
    await files.close();
    throw error;
  }
}

async function openFiles(source: Source, options: LayoutOptions): Promise<StoredFiles> {
  const { spoolDirectory: directory, decompress, namelessFile, stdin } = options;
  const { signal = new AbortController().signal } = options;
  const spooling = { directory, decompress, namelessFile, signal };
  const name = printable(
    source.transport === 'stdin' ? 'the archive on standard input' : formatSource(source),
  );
  if (source.transport === 'oci') return DirectoryFiles.open(source.path, name);
  if (source.transport !== 'stdin') return ArchiveFiles.open(source.path, name, spooling);
  if (stdin === undefined)
    throw new UsageError('cannot read an archive: no standard input is given', {
      hint: 'pass a stream as the option stdin',
    });
  return ArchiveFiles.fromStream(stdin, name, spooling);
}

/** Newer `docker save` writes both; what was asked for counts, and on standard input the one with digests. */
async function isDockerArchive(source: Source, files: StoredFiles): Promise<boolean> {
  const hasIndex = (await files.find('index.json')) !== undefined;
  if (hasIndex && source.transport !== 'docker-archive') return false;
  const hasListing = (await files.find('manifest.json')) !== undefined;
  if (hasListing && source.transport !== 'oci-archive' && source.transport !== 'oci') return true;
  throw new NotFoundError(`${files.name} holds no image in that form`, {
    code: 'NOT_AN_IMAGE',
    hint: await otherForm(source, files, { hasIndex, hasListing }),
  });
}

async function otherForm(
  { path, transport }: Source,
  files: StoredFiles,
  { hasIndex, hasListing }: { hasIndex: boolean; hasListing: boolean },
): Promise<string> {
  if (transport === 'oci') return `an OCI layout has a file index.json`;
  if (hasIndex) return `it is an OCI layout: write oci-archive:${printable(path)}`;
  if (hasListing) return `it is an archive of docker save: write docker-archive:${printable(path)}`;
  if ((await files.find('repositories')) !== undefined) {
    return 'it was saved by a Docker older than 1.10: load it there and save it again';
  }
  return 'it has neither index.json (OCI) nor manifest.json (docker save); a plain root file system is unpacked by tar';
}
