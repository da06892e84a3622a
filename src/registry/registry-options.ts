import type { Digest } from '../oci/digest.ts';
import type { Report } from '../report/event.ts';
import type { RequestQueue } from '../sys/request-queue.ts';
import type { RetryPolicy } from '../sys/retry.ts';
import type { Environment } from '../sys/os-path.ts';
import type { Secrets } from '../sys/secrets.ts';

/** A user name and a password of the caller; both empty: anonymous, with a notice. */
export interface GivenCredentials {
  readonly username: string;
  readonly password: string;
  /** Their source, for messages: `-u`, `DLROOTFS_CREDS`. */
  readonly source?: string | undefined;
}

/** A bearer token and its source, for messages. */
export interface GivenToken {
  readonly token: string;
  readonly source: string;
}

/** Keeps manifests and configs of earlier runs, by digest. */
export interface ManifestStore {
  /** The bytes as they were stored; they are verified again by the caller. */
  get(digest: Digest): Promise<Uint8Array | undefined>;
  put(digest: Digest, bytes: Uint8Array): Promise<void>;
  /** The digest that `remember` stored last for this reference (`name:tag`), and the time of that. */
  recall(reference: string): Promise<{ readonly digest: Digest; readonly at: Date } | undefined>;
  remember(reference: string, digest: Digest): Promise<void>;
}

/** Milliseconds until a request without progress fails. */
export interface Timeouts {
  /** To connect, name look-up and TLS handshake included. */
  readonly connect: number;
  /** From the request to the final status; with `connect` also the limit for interim answers (1xx). */
  readonly headers: number;
  /** With fewer bytes of the body than a minimum. */
  readonly stall: number;
  /** For a whole small body: a manifest, a token, an error. */
  readonly document: number;
}

/** How to use registries. Nothing is read from `process`: the environment is an option. */
export interface RegistryOptions {
  /** HOME, XDG_*, DOCKER_CONFIG, REGISTRY_AUTH_FILE, HTTP(S)_PROXY, NO_PROXY, NODE_EXTRA_CA_CERTS, PATH … */
  readonly environment: Environment;
  readonly report: Report;
  /** Of the user, for `/run/containers/UID/auth.json`; undefined on systems without user ids. */
  readonly uid?: number | undefined;

  readonly credentials?: GivenCredentials | undefined;
  /** Sent as Bearer token as it is. */
  readonly registryToken?: string | GivenToken | undefined;
  readonly authFile?: string | undefined;
  /** Send no credentials, and read no files for them. */
  readonly noCredentials?: boolean | undefined;

  /** False: certificates are not checked, and http is tried where https fails. Default: true. */
  readonly tlsVerify?: boolean | undefined;
  /** http, without trying https. */
  readonly plainHttp?: boolean | undefined;
  /** A directory with `*.crt` (authorities), `*.cert` and `*.key` (client certificate), instead of those in certs.d. */
  readonly certDir?: string | undefined;
  readonly caFile?: string | undefined;
  readonly certFile?: string | undefined;
  readonly keyFile?: string | undefined;

  /** `[scheme://]host[:port][/path]`, tried in order before the registry itself. */
  readonly mirrors?: readonly string[] | undefined;
  /** Use only this version of the protocol. Default: 2, and 1 where the registry does not know 2. */
  readonly registryVersion?: 1 | 2 | undefined;

  /** Retries of a request. Default: 5. */
  readonly retry?: number | undefined;
  /** Milliseconds before the first retry, doubled for each further one. Default: 500. */
  readonly retryDelay?: number | undefined;
  /** All requests wait here; the queue of layers puts those for blobs there. Default: one of its own for seven. */
  readonly requests?: RequestQueue | undefined;
  readonly timeouts?: Partial<Timeouts> | undefined;
  readonly manifestStore?: ManifestStore | undefined;
  /** No requests: manifests and configs come from `manifestStore`. `hint` is for errors about what it lacks. */
  readonly offline?: { readonly hint: string } | undefined;
  /** Learns what is secret in this session; the caller masks what leaves it. */
  readonly secrets?: Secrets | undefined;
  /** Aborts the session; a blob has a signal of its own. */
  readonly signal?: AbortSignal | undefined;
  /** Directories to look in instead of `/etc` for `containers/` and `docker/`. */
  readonly configDirs?: readonly string[] | undefined;
}

/** How all requests of a session are made. */
export interface SessionSettings {
  readonly options: RegistryOptions;
  readonly timeouts: Timeouts;
  readonly retryPolicy: RetryPolicy;
  readonly report: Report;
  readonly secrets: Secrets;
  readonly requests: RequestQueue;
  /** Aborts requests that have no signal of their own. */
  readonly signal: AbortSignal;
}

export const DEFAULT_TIMEOUTS: Timeouts = {
  connect: 15_000,
  headers: 30_000,
  stall: 30_000,
  document: 60_000,
};

/** How often a request is sent again, and after which delay. */
export function retryPolicyOf({
  retry = 5,
  retryDelay = 500,
}: Pick<RegistryOptions, 'retry' | 'retryDelay'>): RetryPolicy {
  return { retries: retry, delay: retryDelay };
}

/** The number of the original's parallel pulls. */
export const DEFAULT_CONNECTIONS = 7;
