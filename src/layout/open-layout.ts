import { NotFoundError, UsageError, printable } from '../errors.ts';
import type { LocalLayer, Session } from '../oci/image.ts';
import { openArchive, type SpoolOptions } from './archive-files.ts';
import { directoryFiles, type LayoutFiles } from './layout-files.ts';
import { DockerArchive } from './docker-archive.ts';
import { OciLayout } from './oci-layout.ts';
import { formatSource, type Source } from './local-source.ts';

export interface LayoutOptions extends SpoolOptions {
  /** The archive for `-`. */
  readonly stdin?: AsyncIterable<Uint8Array> | undefined;
}

/**
 * Opens an image on this machine. Manifest and config are checked when the image is requested; the blobs of
 * its layers by their readers.
 *
 * @throws NotFoundError if it does not exist or is no image; IntegrityError if the archive is corrupt;
 * UsageError for `-` without standard input
 */
export async function openLayout(source: Source, options: LayoutOptions): Promise<Session<LocalLayer>> {
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

async function openFiles(source: Source, options: LayoutOptions): Promise<LayoutFiles> {
  const { transport, path } = source;
  const name = printable(transport === 'stdin' ? 'the archive on standard input' : formatSource(source));
  if (transport === 'oci') return directoryFiles(path, name, options.signal);
  const archive = transport === 'stdin' ? options.stdin : path;
  if (archive !== undefined) return openArchive(archive, name, options);
  throw new UsageError('cannot read an archive: no standard input is given', {
    hint: 'pass a stream as the option stdin',
  });
}

/**
 * Newer versions of `docker save` write both forms. The named form is used, on standard input the one with
 * digests.
 */
async function isDockerArchive(source: Source, files: LayoutFiles): Promise<boolean> {
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
  files: LayoutFiles,
  { hasIndex, hasListing }: { hasIndex: boolean; hasListing: boolean },
): Promise<string> {
  if (transport === 'oci') return 'name a directory with index.json, the index of an OCI layout';
  if (hasIndex) return `it is an OCI layout: write oci-archive:${printable(path)}`;
  if (hasListing) return `it is an archive of docker save: write docker-archive:${printable(path)}`;
  if ((await files.find('repositories')) !== undefined) {
    return 'it was saved by a Docker older than 1.10: load it there and save it again';
  }
  return 'it has neither index.json (OCI) nor manifest.json (docker save): unpack a plain root file system with tar';
}
