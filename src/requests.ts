import type { ErofsCompression } from './disk/format.ts';
import { printable, UsageError } from './errors.ts';
import type { WantedLayers } from './oci/first-layers.ts';
import type { Platform } from './oci/platform.ts';
import type { RegistryOptions } from './registry/registry-options.ts';
import type { Owner } from './tar/entry.ts';
import type { Report } from './report/event.ts';
import type { Runtime, VirtualMachine } from './runtime/config-files.ts';
import type { IDMappings } from './runtime/runc.ts';
import type { Environment } from './sys/os-path.ts';
import type { Secrets } from './sys/secrets.ts';
import type { SignerRequest } from './trust/signers.ts';

/** Options of a comparison: the image, and how to get it. All have defaults, as for a pull. */
export interface DiffRequest {
  /** Default: the host's platform. */
  readonly platform?: Platform | undefined;
  /** Only these files and directories of the image, with their content. Default: everything. */
  readonly paths?: readonly string[] | undefined;
  /** Patterns, as in gitignore(5), of files to leave out. */
  readonly excludes?: readonly string[] | undefined;
  /** Only the first layers: their number, or the beginning of the last one's id. Default: all. */
  readonly layers?: WantedLayers | undefined;
  /**
   * `SRC[:DEST]`: files, directories and archives of this machine, applied on top of the image as a last
   * layer.
   */
  readonly add?: readonly string[] | undefined;
  /** The owner of all added files. Default: root, and for entries of an archive the owner in the archive. */
  readonly addOwner?: Owner | undefined;
  /** The number of connections. */
  readonly jobs?: number | undefined;
  /** Keep blobs in the cache. Default: yes. */
  readonly cache?: boolean | undefined;
  readonly cacheDirectory?: string | undefined;
  /** Limit of the cache in bytes; the least recently used blobs are removed first. */
  readonly cacheSize?: number | undefined;
  /** Use only the cache, and no network. */
  readonly offline?: boolean | undefined;
  readonly registry?:
    | Partial<
        Omit<
          RegistryOptions,
          'environment' | 'requests' | 'offline' | 'report' | 'secrets' | 'signal' | 'manifestStore'
        >
      >
    | undefined;
  /**
   * The image must be signed by one of these; otherwise none of its layers is requested. Default: no
   * signature is required.
   */
  readonly signers?: SignerRequest | undefined;
  /**
   * A policy.json that replaces the host's; false: any image is accepted. Default:
   * `~/.config/containers/policy.json`, else `/etc/containers/policy.json`.
   */
  readonly policy?: string | false | undefined;
  /** The archive for the image `-`. */
  readonly stdin?: AsyncIterable<Uint8Array> | undefined;
  readonly environment?: Environment | undefined;
  readonly report?: Report | undefined;
  /** Collects the secrets of the run, so that the caller can mask other texts. Default: a new object. */
  readonly secrets?: Secrets | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Options of `diff`. */
export interface ImagesRequest extends Omit<DiffRequest, 'layers'> {
  /** The layers of both images, or a pair: of the first and of the second. */
  readonly layers?:
    | WantedLayers
    | readonly [first: WantedLayers | undefined, second: WantedLayers | undefined]
    | undefined;
}

/** The options of a pull. All but the image have defaults. */
export interface PullRequest extends DiffRequest {
  /** `ubuntu:14.04`, `host:5000/path@sha256:…`, or a local source such as `oci:DIR`. */
  readonly image: string;
  readonly destination?: string | undefined;
  readonly git?: boolean | undefined;
  /** Write the image's JSON to DIR/json, as the original does. Default: yes. */
  readonly layerInfo?: boolean | undefined;
  /** Write the configurations of these runtimes beside the destination. */
  readonly runtimes?: readonly Runtime[] | undefined;
  /** Replace existing configurations. */
  readonly force?: boolean | undefined;
  /**
   * Make the destination exactly the image and remove any other file in it: true, unless it is the unchanged
   * image already; `always`, in any case. Default: no.
   */
  readonly replace?: boolean | 'always' | undefined;
  /** Unpack the image over the files of the destination. Default: no; then it must be empty. */
  readonly merge?: boolean | undefined;
  /** With runc: a container without root. Default: true if the caller is not root. */
  readonly rootless?: boolean | undefined;
  /** With runc: the container gets a terminal. Default: no. */
  readonly terminal?: boolean | undefined;
  /**
   * With runc and LXC without root: the ids of the user namespace. Default: root alone, who is the caller.
   */
  readonly idMappings?: IDMappings | undefined;
  /** Add missing mount points and files that a system needs to boot. */
  readonly prepare?: boolean | undefined;
  /** Write scripts that start a disk image in these, and add an init to the disk if the image has none. */
  readonly virtualMachines?: readonly VirtualMachine[] | undefined;
  /** Size of an ext4 disk image in bytes. Default: computed from its content. */
  readonly diskSize?: number | undefined;
  /** Compression of an EROFS disk image by mkfs.erofs. Default: none, which needs no program. */
  readonly diskCompression?: ErofsCompression | undefined;
  /** File system back end. Default: libc if it can be loaded. */
  readonly backend?: 'libc' | 'node' | undefined;
}

/** Options of `exportArchive`. */
export interface ExportRequest
  extends DiffRequest, Pick<PullRequest, 'diskSize' | 'diskCompression' | 'virtualMachines' | 'force'> {}

/** Options of `listTags`. */
export interface TagsRequest extends Pick<
  PullRequest,
  'registry' | 'environment' | 'report' | 'secrets' | 'signal'
> {
  /** Called with each tag as it arrives. */
  readonly onTag?: ((tag: string) => void) | undefined;
}

/** The directory of the cache, and its limit in bytes. */
export type CacheRequest = Pick<PullRequest, 'cacheDirectory' | 'cacheSize' | 'environment' | 'signal'>;

export interface VerifyRequest extends DiffRequest, Pick<PullRequest, 'destination'> {
  /** Compare contents of files too, not only sizes and times. Default: no. */
  readonly contents?: boolean | undefined;
  /** The directory was pulled with `prepare`: the files that it adds are no differences. */
  readonly prepare?: boolean | undefined;
}

/** All options of the library, including those that a caller passes on from another command. */
const REQUEST_MEMBERS: Readonly<Record<keyof PullRequest, true>> = {
  image: true,
  destination: true,
  git: true,
  layerInfo: true,
  runtimes: true,
  force: true,
  replace: true,
  merge: true,
  rootless: true,
  terminal: true,
  idMappings: true,
  prepare: true,
  virtualMachines: true,
  diskSize: true,
  diskCompression: true,
  layers: true,
  backend: true,
  platform: true,
  paths: true,
  excludes: true,
  add: true,
  addOwner: true,
  jobs: true,
  cache: true,
  cacheDirectory: true,
  cacheSize: true,
  offline: true,
  registry: true,
  stdin: true,
  environment: true,
  report: true,
  secrets: true,
  signers: true,
  policy: true,
  signal: true,
};

type Members<Name extends keyof PullRequest> = Readonly<Record<keyof NonNullable<PullRequest[Name]>, true>>;
type RegistryMembers<Name extends keyof NonNullable<PullRequest['registry']>> = Readonly<
  Record<keyof NonNullable<NonNullable<PullRequest['registry']>[Name]>, true>
>;

const REGISTRY_MEMBERS: Members<'registry'> = {
  uid: true,
  credentials: true,
  registryToken: true,
  authFile: true,
  noCredentials: true,
  tlsVerify: true,
  plainHttp: true,
  certDir: true,
  caFile: true,
  certFile: true,
  keyFile: true,
  mirrors: true,
  registryVersion: true,
  retry: true,
  retryDelay: true,
  timeouts: true,
  configDirs: true,
};

const PLATFORM_MEMBERS: Members<'platform'> = {
  os: true,
  architecture: true,
  variant: true,
  osVersion: true,
};
const OWNER_MEMBERS: Members<'addOwner'> = { uid: true, gid: true };
const MAPPINGS_MEMBERS: Members<'idMappings'> = { uids: true, gids: true };
const SIGNER_MEMBERS: Members<'signers'> = {
  verifyKeys: true,
  certificateIdentity: true,
  certificateIdentityRegexp: true,
  certificateOidcIssuer: true,
  certificateOidcIssuerRegexp: true,
  trustedRoot: true,
};
const CREDENTIALS_MEMBERS: RegistryMembers<'credentials'> = { username: true, password: true, source: true };
const TIMEOUTS_MEMBERS: RegistryMembers<'timeouts'> = {
  connect: true,
  headers: true,
  stall: true,
  document: true,
};

/**
 * @throws UsageError for an option that no command has: a misspelled one would have no effect silently, and an
 * image would be accepted whose signer has a misspelled name
 */
export function refuseUnknownOptions(request: Partial<PullRequest>): void {
  const { registry = {} } = request;
  refuseUnknown(request, REQUEST_MEMBERS);
  refuseUnknown(registry, REGISTRY_MEMBERS, 'registry.');
  refuseUnknown(registry.credentials ?? {}, CREDENTIALS_MEMBERS, 'registry.credentials.');
  refuseUnknown(registry.timeouts ?? {}, TIMEOUTS_MEMBERS, 'registry.timeouts.');
  refuseUnknown(request.platform ?? {}, PLATFORM_MEMBERS, 'platform.');
  refuseUnknown(request.addOwner ?? {}, OWNER_MEMBERS, 'addOwner.');
  refuseUnknown(request.idMappings ?? {}, MAPPINGS_MEMBERS, 'idMappings.');
  refuseUnknown(request.signers ?? {}, SIGNER_MEMBERS, 'signers.');
}

function refuseUnknown(given: object, known: Readonly<Record<string, true>>, before = ''): void {
  const unknown = Object.keys(given).find((name) => !Object.hasOwn(known, name));
  if (unknown !== undefined)
    throw new UsageError(`unknown option: ${before}${printable(unknown)}`, {
      hint: 'docs/library.md lists the options',
    });
}
