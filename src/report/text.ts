import type { Writable } from 'node:stream';
import { printable } from '../errors.ts';
import { configOf } from '../oci/config.ts';
import type { Signer } from '../oci/artifact.ts';
import { shortID } from '../oci/digest.ts';
import type { Image, Layer } from '../oci/image.ts';
import { type Platform, formatPlatform } from '../oci/platform.ts';
import type { InodeType } from '../tar/entry.ts';
import { osPath } from '../sys/os-path.ts';
import type { PullEvent, Report } from './event.ts';
import { formatBytes } from './progress.ts';

/**
 * Prints the original's lines on standard output, byte for byte. Layers are applied while later ones still
 * arrive, but the lines from `Downloading layers:` on are printed when all have arrived, in the original's
 * order.
 *
 * @param wholeLines print whole lines only: others write to the same file
 */
export function textReport(out: Writable, wholeLines = false): Report {
  const lines = new LayerLines((text) => out.write(osPath(text)), wholeLines);
  const seen = new Set<string>();
  return (event: PullEvent) => {
    if ('index' in event) {
      // A pull that is repeated without a corrupt blob repeats its events.
      const line = `${event.type} ${event.index}`;
      if (seen.has(line)) return;
      seen.add(line);
    }
    lines.print(event);
  };
}

/** The lines of a pull, in the original's order. */
class LayerLines {
  readonly #print: (text: string) => void;
  readonly #wholeLines: boolean;
  #ids: readonly string[] = [];
  readonly #started = new Set<number>();
  readonly #fetched = new Set<number>();
  /** The next layer whose start is printed, base first. */
  #next = 0;
  /** The number of layers whose end is printed. */
  #done = 0;
  /** The lines of applied layers, until all layers have arrived. */
  #delayed: string | undefined = '';

  constructor(print: (text: string) => void, wholeLines: boolean) {
    this.#print = print;
    this.#wholeLines = wholeLines;
  }

  print(event: PullEvent): void {
    switch (event.type) {
      case 'session':
        this.#print(`Opening a session for ${event.name} ...\n`);
        break;
      case 'image':
        this.#ids = event.layers.map(({ id }) => shortID(id));
        this.#print(`Image ID: ${event.id}\nPulling ${this.#ids.length} layers:\n`);
        this.#release();
        break;
      case 'layer-start':
        this.#start(event.index);
        break;
      case 'layer-fetched':
        this.#fetched.add(event.index);
        if (event.index < this.#next) this.#printDone(event.index);
        break;
      case 'layer-apply':
        if (!this.#wholeLines) this.#printLater(`\t${this.#ids[event.index]} ... `);
        break;
      case 'layer-applied':
        this.#printLater(this.#wholeLines ? `\t${this.#ids[event.index]} ... done\n` : 'done\n');
        break;
      case 'done':
        if (event.added) this.#print(addedLine(event.added));
        this.#print(`\nRootfs of ${event.reference} in ${event.destination}\n`);
        break;
      default:
    }
  }

  /** Prints the starts of all layers up to the first that has not started. */
  #start(index: number): void {
    this.#started.add(index);
    for (; this.#started.has(this.#next); this.#next += 1) {
      this.#print(`\tPulling fs layer ${this.#ids[this.#next]}\n`);
      if (this.#fetched.has(this.#next)) this.#printDone(this.#next);
    }
  }

  #printDone(index: number): void {
    this.#done += 1;
    this.#print(`\tDone ${this.#ids[index]}\n`);
    this.#release();
  }

  #printLater(text: string): void {
    if (this.#delayed === undefined) this.#print(text);
    else this.#delayed += text;
  }

  /** Prints the delayed lines if all layers have arrived. */
  #release(): void {
    if (this.#delayed === undefined || this.#done < this.#ids.length) return;
    this.#print(`Downloading layers:\n${this.#delayed}`);
    this.#delayed = undefined;
  }
}

/** Returns a line such as `Added 3 paths: agent:/usr/local/bin/, etc.tar`. */
function addedLine({ sources, paths }: NonNullable<Extract<PullEvent, { type: 'done' }>['added']>): string {
  const named = sources.map((source) => printable(source, Infinity)).join(', ');
  return `Added ${paths} ${paths === 1 ? 'path' : 'paths'}: ${named}\n`;
}

/** Prints notices, and with `verbose` debug messages, one line each on standard error. */
export function messageReport(err: Writable, verbose: boolean): Report {
  return (event) => {
    if (event.type === 'notice') err.write(`notice: ${printable(event.message, Infinity)}\n`);
    if (event.type === 'runtime-config')
      err.write(
        `wrote ${printable(event.file, Infinity)}; start it with: ${printable(event.command, Infinity)}\n`,
      );
    if (event.type === 'debug' && verbose) err.write(`debug: ${printable(event.message, Infinity)}\n`);
  };
}

export type InspectedLayer = Pick<Layer, 'id' | 'mediaType' | 'digest' | 'size' | 'diffID' | 'createdBy'> & {
  /** True if its blob is in the cache. */
  readonly cached: boolean;
};

/** The description of an image that `inspect` finds without a pull. */
export interface Inspection extends Pick<Image, 'id' | 'digest' | 'mediaType' | 'platform' | 'rateLimit'> {
  /** The digest of the index of all platforms; absent if the reference names one image. */
  readonly indexDigest?: string | undefined;
  readonly reference: string;
  /** All platforms of the reference; one if it names one image. */
  readonly platforms: readonly Platform[];
  /** Base layer first. */
  readonly layers: readonly InspectedLayer[];
  readonly config: Readonly<Record<string, unknown>>;
  /** The compressed bytes that a pull would read from the cache, and download. */
  readonly bytes: { readonly cache: number; readonly network: number };
  /** The demanded signers that signed the image; absent if none are demanded. */
  readonly signers?: readonly Signer[] | undefined;
}

/** Returns a signer on one line: `identity (issuer), referrer sha256:…`. */
export function signerText({ key, identity, issuer, reference, place }: Signer): string {
  const by = key === undefined ? `${identity} (${issuer})` : `the key ${key}`;
  return `${by}${reference === undefined ? '' : `, as ${reference}`}: ${place}`;
}

/**
 * Returns an inspection as text, with one line per layer. Text from the image is made printable.
 *
 * @param columns of the terminal; a digest that does not fit is printed on its own line
 */
export function inspectionText(inspection: Inspection, columns = Infinity): string {
  const { layers, bytes, signers = [] } = inspection;
  const { created, config } = configOf(inspection.config);
  const rows: (readonly [name: string, value: string | undefined])[] = [
    ['Image', inspection.reference],
    ['Image ID', inspection.id],
    ['Digest', inspection.digest],
    ['Index', inspection.indexDigest],
    ...signers.map((signer) => ['Signed by', signerText(signer)] as const),
    ['Platform', formatPlatform(inspection.platform)],
    ['Platforms', [...new Set(inspection.platforms.map(formatPlatform))].join(', ')],
    ['Created', created],
    // Names of `docker inspect`.
    ['Entrypoint', config.Entrypoint && JSON.stringify(config.Entrypoint)],
    ['Cmd', config.Cmd && JSON.stringify(config.Cmd)],
    ['User', config.User],
    ['WorkingDir', config.WorkingDir],
    ['Env', config.Env?.join('  ')],
    ['Volumes', config.Volumes?.join(' ')],
    ['Ports', config.ExposedPorts?.join(' ')],
    ['Rate limit', inspection.rateLimit],
    ['To fetch', toFetch(bytes)],
    ['Layers', String(layers.length)],
  ];
  const lines = rows
    .filter(([, value]) => value !== undefined && value !== '')
    .map(([name, value]) => {
      const text = printable(value!, 2000);
      const line = `${`${name}:`.padEnd(13)}${text}\n`;
      return line.length - 1 > columns && text.length + 2 <= columns ? `${name}:\n  ${text}\n` : line;
    });
  const anyCached = layers.some(({ cached }) => cached);
  const layerLines = layers.map(({ id, size, createdBy, cached }) => {
    const amount = size === undefined ? '?' : formatBytes(size);
    const mark = cached ? '  cached' : '        ';
    const command = createdBy === undefined ? '' : `  ${printable(shownCommand(createdBy), 100)}`;
    const facts = `  ${shortID(id)}  ${amount.padStart(9)}${anyCached ? mark : ''}`;
    const line = `${facts}${command}`.trimEnd();
    if (line.length <= columns) return line;
    // The command is cut, but no number.
    return columns > facts.length + 2 ? `${line.slice(0, columns - 1)}…` : facts.trimEnd();
  });
  return `${lines.join('')}${layerLines.join('\n')}${layerLines.length > 0 ? '\n' : ''}`;
}

/** One name in a listing. */
export interface ListedEntry {
  /** An absolute path in the image. */
  readonly path: string;
  readonly type: InodeType;
  /** Permissions, and the setuid, setgid and sticky bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Bytes of a file. */
  readonly size?: number;
  /** Major and minor number of a device: `1, 3`. */
  readonly device?: string;
  /** ISO 8601, to the second. */
  readonly mtime: string;
  /** The target of a symlink. */
  readonly target?: string;
}

const TYPE_LETTERS: Readonly<Record<ListedEntry['type'], string>> = {
  file: '-',
  directory: 'd',
  symlink: 'l',
  character: 'c',
  block: 'b',
  fifo: 'p',
};

/** Returns a listing, one line per name; with `long` in the form of `ls -ln`. */
export function listingText(entries: readonly ListedEntry[], long: boolean): string {
  if (!long) return entries.map((entry) => `${lastNameOf(entry)}\n`).join('');
  const rows = entries.map((entry) => [
    `${TYPE_LETTERS[entry.type]}${permissions(entry.mode)}`,
    `${entry.uid}:${entry.gid}`,
    entry.device ?? String(entry.size ?? 0),
    entry.mtime.slice(0, 16).replace('T', ' '),
    entry.target === undefined
      ? lastNameOf(entry)
      : `${lastNameOf(entry)} -> ${printable(entry.target, Infinity)}`,
  ]);
  const [owner, size] = [1, 2].map((column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map(
      ([mode, ids, amount, time, name]) =>
        `${mode} ${ids!.padEnd(owner!)} ${amount!.padStart(size!)} ${time} ${name}\n`,
    )
    .join('');
}

function lastNameOf({ path }: ListedEntry): string {
  return printable(path.slice(path.lastIndexOf('/') + 1) || '/', Infinity);
}

/** Returns the permissions as ls(1) shows them: `rwsr-xr-t`. */
function permissions(mode: number): string {
  const special = [
    [0o4000, 's'],
    [0o2000, 's'],
    [0o1000, 't'],
  ] as const;
  return special
    .map(([bit, letter], place) => {
      const bits = (mode >> (6 - 3 * place)) & 7;
      const execute = (bits & 1) === 1;
      const last = (mode & bit) === 0 ? (execute ? 'x' : '-') : execute ? letter : letter.toUpperCase();
      return `${(bits & 4) === 0 ? '-' : 'r'}${(bits & 2) === 0 ? '-' : 'w'}${last}`;
    })
    .join('');
}

/** Returns the images of the cache, one per line: tag, digest, size, last use. */
export function storedImagesText(
  images: readonly {
    readonly reference: string;
    readonly digest: string;
    readonly bytes: number;
    readonly lastUsed: string;
  }[],
): string {
  const rows = images.map(({ reference, digest, bytes, lastUsed }) => [
    printable(reference, Infinity),
    digest,
    formatBytes(bytes),
    `${lastUsed.slice(0, 16).replace('T', ' ')} UTC`,
  ]);
  const widths = [0, 1, 2].map((column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows
    .map(
      ([name, digest, size, used]) =>
        `${name!.padEnd(widths[0]!)}  ${digest!.padEnd(widths[1]!)}  ${size!.padStart(widths[2]!)}  ${used}\n`,
    )
    .join('');
}

/** The reasons why DIR is not the image, by `Preview.reason`. */
const PREVIEW_REASONS = {
  missing: 'does not exist yet',
  'other-image': 'holds another image',
  touched: 'was changed since',
  unknown: 'was not made by --replace with these flags, or its note is not in the cache',
  always: 'is this image, and --replace=always makes it again',
} as const;

/** Returns one or two lines about what a pull with `--replace` would do. */
export function previewText({
  destination,
  reference,
  digest,
  changed,
  reason = 'unknown',
  bytes,
}: Pick<Inspection, 'reference' | 'digest' | 'bytes'> & {
  readonly destination: string;
  readonly changed: boolean;
  readonly reason?: keyof typeof PREVIEW_REASONS;
}): string {
  const image = printable(digest === undefined ? reference : `${reference} (${digest})`, 2000);
  const shown = printable(destination);
  if (!changed) return `${shown} is up to date: ${image}\n`;
  return `${shown} ${PREVIEW_REASONS[reason]}: a pull makes it ${image}\nTo fetch: ${toFetch(bytes)}\n`;
}

function toFetch({ network, cache }: Inspection['bytes']): string {
  return cache === 0 ? formatBytes(network) : `${formatBytes(network)}, ${formatBytes(cache)} cached`;
}

/** Removes the prefix that docker's old builder gave to instructions that run nothing. */
function shownCommand(createdBy: string): string {
  return createdBy.replace(/^\/bin\/sh -c #\(nop\)\s*/, '').replaceAll(/\s+/g, ' ');
}
