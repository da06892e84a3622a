import type { Decompress } from './oci/compression.ts';
import type { Session } from './oci/image.ts';
import { Reference } from './oci/reference.ts';
import { formatSource, parseSource } from './layout/local-source.ts';
import type { NamelessFile } from './layout/archive-files.ts';
import type { PullOptions } from './options.ts';
import type { ManifestStore } from './registry/registry-options.ts';

/** Where an image comes from: a registry, or a layout or archive on this machine. */
export interface ImageSource {
  /** `library/x` for Hub, `host[:port]/path` elsewhere, a local source as it was typed. */
  readonly name: string;
  /** `name:tag` or `name@digest`. */
  readonly reference: string;
  /** `docker.io`, or `host[:port]`; undefined for a local source. */
  readonly registry: string | undefined;
  /** The blobs are on this machine already: no store needs a copy of them. */
  readonly local: boolean;
  /** Opens the conversation. */
  open(means: Means): Promise<Session>;
}

/** What a source may need of others. */
export interface Means {
  readonly manifestStore: ManifestStore;
  /** Takes what standard input brings, and what an archive is when it is unpacked. */
  readonly spoolDirectory: string;
  readonly decompress: Decompress;
  readonly namelessFile: NamelessFile;
}

/**
 * The image that the text of a command line or a caller names.
 *
 * @throws UsageError
 */
export function parseImage(
  options: Pick<PullOptions, 'image' | 'registry' | 'stdin' | 'signal'>,
): ImageSource {
  const source = parseSource(options.image);
  if (source !== undefined) {
    const name = formatSource(source);
    const open: ImageSource['open'] = async ({ spoolDirectory, decompress, namelessFile }) => {
      const { openLayout } = await import('./layout/open-layout.ts');
      return await openLayout(source, {
        spoolDirectory,
        decompress,
        namelessFile,
        stdin: options.stdin,
        signal: options.signal,
      });
    };
    return { name, reference: name, registry: undefined, local: true, open };
  }
  const reference = Reference.parse(options.image);
  const open: ImageSource['open'] = async ({ manifestStore }) => {
    const { openSession } = await import('./registry/session.ts');
    return await openSession(reference, { ...options.registry, manifestStore, signal: options.signal });
  };
  const [name, formatted] = [Reference.name(reference), Reference.format(reference)];
  return { name, reference: formatted, registry: reference.registry, local: false, open };
}
