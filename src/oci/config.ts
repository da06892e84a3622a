import { DiffID } from './digest.ts';
import { isObject, listOf, parseJsonObject, textMapOf, textOf, textsOf, type JsonObject } from './json.ts';
import { type Platform, platformOf } from './platform.ts';

/** Limit on configs, which containers/image has too. */
export const MAX_CONFIG_BYTES = 4 * 1024 * 1024;

/** The settings for running a container: the members of "config" in OCI config.md. */
export interface ContainerConfig {
  readonly User?: string | undefined;
  readonly Env?: readonly string[] | undefined;
  readonly Entrypoint?: readonly string[] | undefined;
  readonly Cmd?: readonly string[] | undefined;
  readonly WorkingDir?: string | undefined;
  readonly StopSignal?: string | undefined;
  /** The mount points. */
  readonly Volumes?: readonly string[] | undefined;
  /** `port[/protocol]`. */
  readonly ExposedPorts?: readonly string[] | undefined;
  readonly Labels?: Readonly<Record<string, string>> | undefined;
}

/** One step of the build. */
export interface HistoryEntry {
  readonly created?: string | undefined;
  readonly createdBy?: string | undefined;
  readonly author?: string | undefined;
  readonly comment?: string | undefined;
  /** True if the step changed only the configuration and made no layer. */
  readonly emptyLayer: boolean;
}

/** The image configuration (OCI config.md; Docker's image JSON is the same). */
export interface ImageConfig {
  /** Normalised; os and architecture are empty if the config does not name them. */
  readonly platform: Platform;
  /** RFC 3339. */
  readonly created?: string | undefined;
  readonly author?: string | undefined;
  /** Base layer first; empty with schema 1 and registry v1, which have none. */
  readonly diffIDs: readonly DiffID[];
  /** Oldest step first. */
  readonly history: readonly HistoryEntry[];
  readonly config: ContainerConfig;
  /** The document as it was parsed. */
  readonly raw: JsonObject;
}

/**
 * Parses a config blob. Its `diff_ids`, on which the rootfs depends, must be well-formed. Optional members of
 * a wrong type are ignored: real images have them.
 *
 * @throws IntegrityError
 */
export function parseConfig(bytes: Uint8Array, what = 'the image config'): ImageConfig {
  return configOf(parseJsonObject(bytes, what), what);
}

/**
 * Reads a parsed config, or an image JSON of registry v1 or schema 1.
 *
 * @throws as `parseConfig`
 */
export function configOf(raw: JsonObject, what = 'the image config'): ImageConfig {
  return {
    platform: platformOf(raw),
    created: textOf(raw['created']),
    author: textOf(raw['author']),
    diffIDs: diffIDsOf(raw['rootfs'], what),
    history: Array.isArray(raw['history']) ? raw['history'].filter(isObject).map(historyEntryOf) : [],
    config: isObject(raw['config']) ? containerConfigOf(raw['config']) : {},
    raw,
  };
}

function diffIDsOf(rootfs: unknown, what: string): readonly DiffID[] {
  if (!isObject(rootfs)) return [];
  const list = rootfs['diff_ids'];
  if (list === undefined || list === null) return [];
  return listOf(list, 'rootfs.diff_ids', what).map((text, index) =>
    DiffID.parse(text, `diff_ids[${index}] of ${what}`),
  );
}

function historyEntryOf(entry: JsonObject): HistoryEntry {
  return {
    created: textOf(entry['created']),
    createdBy: textOf(entry['created_by']),
    author: textOf(entry['author']),
    comment: textOf(entry['comment']),
    emptyLayer: entry['empty_layer'] === true,
  };
}

function containerConfigOf(config: JsonObject): ContainerConfig {
  return {
    User: textOf(config['User']),
    Env: textsOf(config['Env']),
    Entrypoint: commandOf(config['Entrypoint']),
    Cmd: commandOf(config['Cmd']),
    WorkingDir: textOf(config['WorkingDir']),
    StopSignal: textOf(config['StopSignal']),
    Volumes: keysOf(config['Volumes']),
    ExposedPorts: keysOf(config['ExposedPorts']),
    Labels: textMapOf(config['Labels']),
  };
}

/** Accepts a string as well: Docker's old JSON has one in place of a list of one. */
function commandOf(value: unknown): readonly string[] | undefined {
  return typeof value === 'string' ? [value] : textsOf(value);
}

function keysOf(value: unknown): readonly string[] | undefined {
  return isObject(value) ? Object.keys(value) : undefined;
}
