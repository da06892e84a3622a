import { UsageError, printable } from '../errors.ts';

/** An image on this machine, in a form of `skopeo copy` or `docker save`. */
export interface Source {
  /** `stdin`: an archive of either form, whose content tells which. */
  readonly transport: 'oci' | 'oci-archive' | 'docker-archive' | 'stdin';
  /** Directory or file; empty for stdin. */
  readonly path: string;
  /**
   * Selects one of several images: a tag for OCI, a reference for docker archives, `@N` for the N-th (from 0)
   * of either.
   */
  readonly image?: string | undefined;
}

/** Names of local sources, as in skopeo. */
export const transports = ['oci', 'oci-archive', 'docker-archive'] as const;

/** Sources of skopeo that only its own tools read, and the hint for each. */
const OTHER_TRANSPORTS: readonly (readonly [form: RegExp, hint: (image: string) => string])[] = [
  [/^docker-daemon:(.+)/, (image) => `write docker save ${image} | dlrootfs -`],
  [/^containers-storage:(.+)/, (image) => `write podman save ${image} | dlrootfs -`],
  [/^dir:([./].*)/, (image) => `write skopeo copy dir:${image} oci:DIR, then dlrootfs oci:DIR`],
];

/**
 * Parses `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:REFERENCE]` and `-[:TAG]` by
 * skopeo's rules: one of these words before the first colon is a transport, and the path ends at the next
 * colon (so it cannot contain one). An image that is really called `oci` is written `library/oci:1.0`.
 *
 * @returns undefined for anything else: a reference to a registry
 * @throws UsageError for a transport without path or with an empty tag, and for a transport that only skopeo
 * reads
 */
export function parseSource(text: string): Source | undefined {
  if (text === '-') return { transport: 'stdin', path: '' };
  if (text.startsWith('-:')) return { transport: 'stdin', path: '', ...imageOf(text.slice(2), text) };
  const transport = transports.find((name) => text.startsWith(`${name}:`));
  if (transport === undefined) {
    for (const [form, hint] of OTHER_TRANSPORTS) {
      const image = form.exec(text)?.[1];
      if (image === undefined) continue;
      const name = text.slice(0, text.indexOf(':') + 1);
      throw new UsageError(`cannot read ${name} images`, { hint: hint(printable(image)) });
    }
    return undefined;
  }
  const rest = text.slice(transport.length + 1);
  const colon = rest.indexOf(':');
  const path = colon === -1 ? rest : rest.slice(0, colon);
  if (path === '') {
    throw new UsageError(`"${printable(text)}" names no ${transport === 'oci' ? 'directory' : 'file'}`, {
      hint: `write ${transport}:PATH or ${transport}:PATH:TAG`,
    });
  }
  if (path.includes('\0')) throw new UsageError(`"${printable(text)}" has a NUL byte in its path`);
  return { transport, path, ...(colon === -1 ? {} : imageOf(rest.slice(colon + 1), text)) };
}

/** Returns the source as it was typed. */
export function formatSource({ transport, path, image }: Source): string {
  const place = transport === 'stdin' ? '-' : `${transport}:${path}`;
  return image === undefined ? place : `${place}:${image}`;
}

function imageOf(image: string, text: string): { image: string } {
  if (image !== '') return { image };
  throw new UsageError(`nothing follows the last ":" in "${printable(text)}"`, {
    hint: 'leave the colon out where there is only one image',
  });
}
