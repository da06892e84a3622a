import { readFileSync } from 'node:fs';
import { arch, platform } from 'node:os';
import path from 'node:path';
import { getegid, geteuid } from 'node:process';
import { printable, UsageError } from './errors.ts';
import { formatPlatform, hostPlatform, type Platform } from './oci/platform.ts';
import { DEFAULT_CONNECTIONS, type RegistryOptions, retryPolicyOf } from './registry/registry-options.ts';
import type { PullEvent, Report } from './report/event.ts';
import type { PullRequest } from './requests.ts';
import { type PartOptions, Selection } from './rootfs/selection.ts';
import { homeDirectory } from './sys/config-files.ts';
import { shellWord, type Environment } from './sys/os-path.ts';
import { RequestQueue } from './sys/request-queue.ts';
import type { RetryPolicy } from './sys/retry.ts';
import { Secrets } from './sys/secrets.ts';
import type { SignerRequest } from './trust/signers.ts';

/** Members of a request that have another form in the options. */
type Resolved =
  | 'add'
  | 'paths'
  | 'excludes'
  | 'cache'
  | 'cacheDirectory'
  | 'cacheSize'
  | 'offline'
  | 'registry';
/** Members without a default. */
type Optional =
  | 'policy'
  | 'addOwner'
  | 'layers'
  | 'idMappings'
  | 'diskSize'
  | 'diskCompression'
  | 'backend'
  | 'stdin';

/** A request with all defaults, checked for contradictions. */
export interface PullOptions
  extends Required<Omit<PullRequest, Resolved | Optional>>, Pick<PullRequest, Optional> {
  /** Files, directories and archives that are applied on top of the image. */
  readonly additions: readonly Addition[];
  /** The wanted part of the image; undefined: all of it. */
  readonly part: PartOptions | undefined;
  /** True if the caller named the platform. */
  readonly isPlatformNamed: boolean;
  /** Directory of the cache (undefined: none), whether the run needs it, and its limit in bytes. */
  readonly store: {
    readonly directory: string | undefined;
    readonly required?: boolean;
    readonly maxBytes: number;
  };
  /** Set offline; `hint` says how to fill the cache. */
  readonly offline: { readonly hint: string } | undefined;
  readonly retryPolicy: RetryPolicy;
  /** The limit on connections (`jobs`), shared by the session and the layers. */
  readonly requests: RequestQueue;
  readonly registry: RegistryOptions;
  /** The caller's effective id. */
  readonly uid: number;
  readonly gid: number;
}

const DEFAULT_CACHE_BYTES = 10 * 2 ** 30;

/**
 * Makes the frozen options of a request.
 *
 * @throws UsageError that names the option
 */
export function resolveOptions(request: PullRequest): PullOptions {
  const { add = [], cache, cacheDirectory, cacheSize, ...given } = withoutUndefined(request);
  const options = { ...DEFAULTS, ...given };
  const { destination, environment, jobs, secrets = new Secrets() } = options;
  const report = maskedReport(options.report, secrets);
  if (destination === '')
    throw new UsageError('the destination is empty', { hint: 'give a directory: -d DIR' });
  if (destination.includes('\0')) throw new UsageError('the destination has a NUL byte in its name');
  if (!Number.isInteger(jobs) || jobs < 1) throw new UsageError('jobs must be a whole number from 1 up');
  const { layers } = options;
  if (
    !(typeof layers === 'number' ? Number.isInteger(layers) && layers >= 0 : /^[0-9a-f]*$/.test(layers ?? ''))
  )
    throw new UsageError("layers must be a whole number from 0 up, or the beginning of a layer's id");
  for (const [isGiven, message, hint] of CONTRADICTIONS)
    if (isGiven(request)) throw new UsageError(message, { hint });
  const offline = options.offline ? { hint: `run ${fillingCommand(request)}` } : undefined;
  const part = partOf(request);
  if (part) Selection.check(part);
  const directory = cache === false ? undefined : (cacheDirectory ?? defaultCacheDirectory(environment));
  learnSecrets(secrets, { ...options, cacheDirectory: directory });
  const uid = geteuid?.();
  const requests = new RequestQueue(jobs);
  return Object.freeze({
    rootless: uid !== 0,
    platform: given.platform ?? thisHost(),
    signal: new AbortController().signal,
    ...options,
    report,
    secrets,
    additions: add.map((text) => parseAddition(text)),
    part,
    isPlatformNamed: given.platform !== undefined,
    store: {
      directory,
      maxBytes: cacheSize ?? DEFAULT_CACHE_BYTES,
    },
    offline,
    retryPolicy: retryPolicyOf(given.registry ?? {}),
    requests,
    registry: { uid, ...given.registry, environment, requests, offline, report, secrets },
    uid: uid ?? 0,
    gid: getegid?.() ?? 0,
  });
}

/** Adds the caller's secrets and open texts before any text with them can be reported. */
function learnSecrets(secrets: Secrets, { image, destination, cacheDirectory, registry }: PullRequest): void {
  const { credentials, registryToken } = registry ?? {};
  for (const text of [image, destination && path.resolve(destination), cacheDirectory])
    if (text !== undefined) secrets.expose(text);
  if (credentials) secrets.addPassword(credentials.username, credentials.password);
  if (registryToken !== undefined)
    secrets.add(typeof registryToken === 'string' ? registryToken : registryToken.token);
}

/** Masks secrets in events, except in their type, which is our word. */
function maskedReport(report: Report, secrets: Secrets): Report {
  return (event) => report({ ...secrets.maskIn(event), type: event.type } as PullEvent);
}

const DEFAULTS = {
  layers: undefined,
  destination: './rootfs',
  git: false,
  layerInfo: true,
  runtimes: [],
  force: false,
  replace: false,
  merge: false,
  terminal: false,
  prepare: false,
  virtualMachines: [],
  jobs: DEFAULT_CONNECTIONS,
  signers: {},
  environment: {},
  report: () => undefined,
} as const;

/** Removes undefined members: a caller can pass undefined for a default. */
function withoutUndefined<T extends object>(request: T): { [Name in keyof T]: Exclude<T[Name], undefined> } {
  const members = Object.entries(request).filter(([, value]) => value !== undefined);
  return Object.fromEntries(members) as { [Name in keyof T]: Exclude<T[Name], undefined> };
}

/** A file, directory or archive of this machine, and its path in the image. */
export interface Addition {
  /** The text of the option: `SRC[:DEST]`. */
  readonly text: string;
  readonly source: string;
  /** An absolute path; undefined: in the root, a file under its own name. */
  readonly destination: string | undefined;
}

/**
 * Parses `SRC[:DEST]`, split at the last colon that a slash follows.
 *
 * @throws UsageError
 */
function parseAddition(text: string): Addition {
  const at = text.lastIndexOf(':/');
  const [source, destination] = at >= 0 ? [text.slice(0, at), text.slice(at + 1)] : [text, undefined];
  if (source !== '' && !text.includes('\0')) return { text, source, destination };
  throw new UsageError(`--add ${printable(text)} names no file`, {
    hint: 'write --add SRC, or --add SRC:/DEST for another place in the image',
  });
}

const LEAVE_ONE_OUT = 'leave one of them out';

/** Options that exclude each other, with the message and the hint. */
const CONTRADICTIONS: readonly (readonly [(request: PullRequest) => boolean, string, string])[] = [
  [
    ({ merge, git }) => merge === true && git === true,
    'cannot use merge with git: a git branch holds the layers of one image',
    LEAVE_ONE_OUT,
  ],
  [
    ({ merge, replace = false }) => merge === true && replace !== false,
    'merge contradicts replace: one lays the image over the files of the destination, one removes them',
    LEAVE_ONE_OUT,
  ],
  [
    ({ offline, cache }) => offline === true && cache === false,
    'cannot use --offline with --no-cache: it uses only the cache',
    LEAVE_ONE_OUT,
  ],
  [
    (request) => request.git === true && partOf(request) !== undefined,
    'cannot use git for a part of an image: a git branch holds a whole layer',
    'leave out -g, or --path and --exclude',
  ],
];

/**
 * @param made the thing that is made instead, for messages: `a directory`
 * @throws UsageError for options about a disk image
 */
export function refuseDiskOptions(options: PullOptions, made: string): void {
  const {
    diskSize,
    diskCompression,
    virtualMachines: [machine],
  } = options;
  const hint = 'use -o FILE.ext4';
  if (diskCompression !== undefined)
    throw new UsageError(`--compress is for an erofs, not for ${made}`, { hint: 'use -o FILE.erofs' });
  if (diskSize !== undefined)
    throw new UsageError(`--size is the size of a disk image, not of ${made}`, { hint });
  if (machine !== undefined)
    throw new UsageError(`--for ${machine} starts a disk image, not ${made}`, { hint });
}

function partOf({ paths = [], excludes = [] }: PullRequest): PartOptions | undefined {
  return paths.length > 0 || excludes.length > 0 ? { paths, excludes } : undefined;
}

/** The flags for signers, by their members. */
const SIGNER_FLAGS: Readonly<Record<keyof SignerRequest, string>> = {
  verifyKeys: '--verify-key',
  certificateIdentity: '--certificate-identity',
  certificateIdentityRegexp: '--certificate-identity-regexp',
  certificateOidcIssuer: '--certificate-oidc-issuer',
  certificateOidcIssuerRegexp: '--certificate-oidc-issuer-regexp',
  trustedRoot: '--trusted-root',
};

/** Returns the command that puts the image into the cache, for a machine with a network. */
function fillingCommand(request: PullRequest): string {
  const words = ['dlrootfs', 'cache', 'add', request.image];
  if (request.platform) words.push('--platform', formatPlatform(request.platform));
  if (request.cacheDirectory !== undefined) words.push('--cache-dir', request.cacheDirectory);
  if (request.policy === false) words.push('--insecure-policy');
  else if (request.policy !== undefined) words.push('--policy', request.policy);
  for (const [member, value] of Object.entries(request.signers ?? {})) {
    const flag = SIGNER_FLAGS[member as keyof SignerRequest];
    for (const text of [value ?? []].flat()) words.push(flag, text);
  }
  return words.map((word) => shellWord(word)).join(' ');
}

/**
 * Returns `$XDG_CACHE_HOME/dlrootfs`, else a directory below the home; undefined without a home. A relative
 * value is ignored (XDG base directory specification).
 */
export function defaultCacheDirectory(environment: Environment): string | undefined {
  const base = environment['XDG_CACHE_HOME'];
  if (base !== undefined && path.isAbsolute(base)) return path.join(base, 'dlrootfs');
  const home = homeDirectory(environment);
  return home !== undefined && home !== '/nonexistent' ? path.join(home, '.cache', 'dlrootfs') : undefined;
}

function thisHost(): Platform {
  const cpuinfo = arch() === 'arm' ? readFileSync('/proc/cpuinfo', 'utf8') : undefined;
  return hostPlatform({ platform: platform(), arch: arch(), cpuinfo });
}
