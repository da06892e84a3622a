import type { Digest } from '../oci/digest.ts';
import type { Report } from '../report/event.ts';
import type { RetryPolicy } from '../sys/retry.ts';

/** A user name and a password of the caller; both empty: anonymous, with a notice. */
interface GivenCredentials {
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
  /** What `remember` got last for this reference (`name:tag`). Without it, each tag costs a HEAD. */
  recall?(reference: string): Promise<Remembered | undefined>;
  remember?(reference: string, digest: Digest): Promise<void>;
}

/** The digest that a tag had at a time. */
export interface Remembered {
  readonly digest: Digest;
  readonly at: Date;
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
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly report: Report;
  /** Of the user, for `/run/containers/UID/auth.json`; undefined on systems without user ids. */
  readonly uid?: number | undefined;

  readonly credentials?: GivenCredentials | undefined;
  /** Sent as Bearer token as it is. */
  readonly registryToken?: string | GivenToken | undefined;
  readonly authFile?: string | undefined;
  /** Send no credentials, and read no files for them. */
  readonly noCredentials?: boolean | undefined;

  /** False: certificates are not checked, and http is tried where https fails. True when left out. */
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
  /** Only this version of the protocol; left out: 2, and 1 where the registry does not know it. */
  readonly registryVersion?: 1 | 2 | undefined;

  /** Retries of a request; 5 when left out. */
  readonly retry?: number | undefined;
  /** Milliseconds before the first retry, doubled for each further one; 500 when left out. */
  readonly retryDelay?: number | undefined;
  /** Requests under way at once, bodies being read included; 7 when left out. */
  readonly connections?: number | undefined;
  readonly timeouts?: Partial<Timeouts> | undefined;
  readonly manifestStore?: ManifestStore | undefined;
  /** No requests: manifests and configs come from `manifestStore`. `hint` is for errors about what it lacks. */
  readonly offline?: { readonly hint: string } | undefined;
  /** Aborts reading configuration files. */
  readonly signal?: AbortSignal | undefined;
  /** Directories to look in instead of `/etc` for `containers/` and `docker/`. */
  readonly configDirs?: readonly string[] | undefined;
}

/** How all requests of a session are made. */
export interface RequestPolicy {
  readonly timeouts: Timeouts;
  readonly retry: RetryPolicy;
  readonly report: Report;
}

export const DEFAULT_TIMEOUTS: Timeouts = {
  connect: 15_000,
  headers: 30_000,
  stall: 30_000,
  document: 60_000,
};

/** Retries of a request, and the milliseconds before the first of them. */
export const DEFAULT_RETRIES = 5;
export const DEFAULT_RETRY_DELAY = 500;

/** As many as the original's parallel pulls. */
export const DEFAULT_CONNECTIONS = 7;
