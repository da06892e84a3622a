import { decompress } from '../blob/decode/decompress.ts';
import { formatSource, parseSource, type Source } from '../layout/local-source.ts';
import type { Session } from '../oci/image.ts';
import { Reference } from '../oci/reference.ts';
import type { PullOptions } from '../options.ts';
import type { ManifestStore } from '../registry/registry-options.ts';

/** The source of an image: a registry, or a layout or archive on this machine. */
export interface ImageSource {
  /** `library/x` for Hub, `host[:port]/path` elsewhere, a local source as it was typed. */
  readonly name: string;
  /** `name:tag` or `name@digest`. */
  readonly reference: string;
  /** `docker.io`, or `host[:port]`; undefined for a local source. */
  readonly registry: string | undefined;
  /** The name in a registry, or the place on this machine. */
  readonly parsed: Reference | Source;
  /** True for a local source: no store needs a copy of its blobs. */
  readonly local: boolean;
  /**
   * @param spoolDirectory for temporary files of a local source
   * @param storeAlone for a registry: send no requests and report nothing
   */
  open(manifestStore: ManifestStore, spoolDirectory: string, storeAlone?: boolean): Promise<Session>;
}

/**
 * Parses the name of an image: a reference, or a local source such as `oci:DIR`.
 *
 * @throws UsageError
 */
export function parseImage(
  options: Pick<PullOptions, 'image' | 'registry' | 'stdin' | 'signal'>,
): ImageSource {
  const { image, registry, stdin, signal } = options;
  const source = parseSource(image);
  if (source !== undefined) {
    const name = formatSource(source);
    const open: ImageSource['open'] = async (_, spoolDirectory) => {
      const { openLayout } = await import('../layout/open-layout.ts');
      return await openLayout(source, { spoolDirectory, decompress, stdin, signal });
    };
    return { name, reference: name, parsed: source, registry: undefined, local: true, open };
  }
  const reference = Reference.parse(image);
  const open: ImageSource['open'] = async (manifestStore, _, storeAlone) => {
    const { openSession } = await import('../registry/session.ts');
    const quiet = storeAlone && { offline: { hint: '' }, report: () => undefined };
    return await openSession(reference, { ...registry, ...quiet, manifestStore, signal });
  };
  const [name, formatted] = [Reference.name(reference), Reference.format(reference)];
  const { registry: host } = reference;
  return { name, reference: formatted, parsed: reference, registry: host, local: false, open };
}
