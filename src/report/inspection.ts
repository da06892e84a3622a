import { printable } from '../errors.ts';
import type { Platform } from '../oci/platform.ts';
import { formatPlatform } from '../oci/platform.ts';
import { formatBytes } from './progress.ts';

/** What the text needs of an inspection. */
export interface InspectionFacts {
  readonly reference: string;
  readonly id: string;
  readonly digest?: string | undefined;
  readonly platform: Platform;
  readonly platforms: readonly Platform[];
  readonly layers: readonly {
    readonly id: string;
    readonly size?: number | undefined;
    readonly createdBy?: string | undefined;
    readonly cached: boolean;
  }[];
  readonly config: Readonly<Record<string, unknown>>;
  readonly bytes: { readonly cache: number; readonly network: number };
  readonly rateLimit?: string | undefined;
}

/** An inspection for people, a line a layer, cut to `columns` on a terminal; texts of the image's are made printable. */
export function inspectionText(facts: InspectionFacts, columns = Infinity): string {
  const { layers, bytes } = facts;
  const rows: (readonly [name: string, value: string | undefined])[] = [
    ['Image', facts.reference],
    ['Image ID', facts.id],
    ['Digest', facts.digest],
    ['Platform', formatPlatform(facts.platform)],
    ['Platforms', [...new Set(facts.platforms.map(formatPlatform))].join(', ')],
    ['Created', textOf(facts.config['created'])],
    ...containerRows(facts.config['config']),
    ['Rate limit', facts.rateLimit],
    ['To fetch', toFetch(bytes)],
    ['Layers', String(layers.length)],
  ];
  const lines = rows
    .filter(([, value]) => value !== undefined && value !== '')
    .map(([name, value]) => `${`${name}:`.padEnd(13)}${printable(value!, 2000)}\n`);
  const anyStored = layers.some(({ cached }) => cached);
  const layerLines = layers.map(({ id, size, createdBy, cached }) => {
    const amount = size === undefined ? '?' : formatBytes(size);
    const stored = cached ? '  stored' : '        ';
    const command = createdBy === undefined ? '' : `  ${printable(shownCommand(createdBy), 100)}`;
    const line = `  ${id.slice(0, 12)}  ${amount.padStart(9)}${anyStored ? stored : ''}${command}`.trimEnd();
    return line.length > columns ? `${line.slice(0, columns - 1)}…` : line;
  });
  return `${lines.join('')}${layerLines.join('\n')}${layerLines.length > 0 ? '\n' : ''}`;
}

function toFetch({ network, cache }: InspectionFacts['bytes']): string {
  return cache === 0
    ? formatBytes(network)
    : `${formatBytes(network)}, ${formatBytes(cache)} are in the store`;
}

/** Without what docker's old builder writes before instructions that run nothing. */
function shownCommand(createdBy: string): string {
  return createdBy.replace(/^\/bin\/sh -c #\(nop\)\s*/, '').replaceAll(/\s+/g, ' ');
}

/** Names as `docker inspect` has them, for what most people look for. */
function containerRows(config: unknown): (readonly [name: string, value: string | undefined])[] {
  if (typeof config !== 'object' || config === null) return [];
  const of = (name: string) => (config as Readonly<Record<string, unknown>>)[name];
  const list = (value: unknown) => (Array.isArray(value) ? JSON.stringify(value) : textOf(value));
  return [
    ['Entrypoint', list(of('Entrypoint'))],
    ['Cmd', list(of('Cmd'))],
    ['User', textOf(of('User'))],
    ['WorkingDir', textOf(of('WorkingDir'))],
    ['Env', Array.isArray(of('Env')) ? (of('Env') as readonly unknown[]).map(String).join('  ') : undefined],
    ['Volumes', keys(of('Volumes'))],
    ['Ports', keys(of('ExposedPorts'))],
  ];
}

const keys = (value: unknown) =>
  typeof value === 'object' && value !== null ? Object.keys(value).join(' ') : undefined;
const textOf = (value: unknown) => (typeof value === 'string' ? value : undefined);
