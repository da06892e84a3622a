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
  /** Returns the digest that `remember` stored last for this reference (`name:tag`), and when. */
  recall(reference: string): Promise<{ readonly digest: Digest; readonly at: Date } | undefined>;
  /** @param subject the manifest that the document with this digest is about, if it is no image */
  remember(reference: string, digest: Digest, subject?: Digest): Promise<void>;
}

/** Time limits of a request, in milliseconds. */
export interface Timeouts {
  /** To connect, including the name look-up and the TLS handshake. */
  readonly connect: number;
  /** From the request to the final status; with `connect` also the limit for interim answers (1xx). */
  readonly headers: number;
  /** Without enough bytes of the body: see LEAST_PROGRESS. */
  readonly stall: number;
  /** For a whole small body: a manifest, a token, an error. */
  readonly document: number;
}

/** Options for using registries. Nothing is read from `process`: the environment is an option. */
export interface RegistryOptions {
  /** HOME, XDG_*, DOCKER_CONFIG, REGISTRY_AUTH_FILE, HTTP(S)_PROXY, NO_PROXY, NODE_EXTRA_CA_CERTS, PATH … */
  readonly environment: Environment;
  readonly report: Report;
  /** The user's id, for `/run/containers/UID/auth.json`; undefined on systems without user ids. */
  readonly uid?: number | undefined;

  readonly credentials?: GivenCredentials | undefined;
  /** A Bearer token, sent unchanged. */
  readonly registryToken?: string | GivenToken | undefined;
  readonly authFile?: string | undefined;
  /** Send no credentials, and read no files for them. */
  readonly noCredentials?: boolean | undefined;

  /** False: certificates are not checked, and http is tried if https fails. Default: true. */
  readonly tlsVerify?: boolean | undefined;
  /** True: http, without trying https. */
  readonly plainHttp?: boolean | undefined;
  /**
   * A directory with `*.crt` (authorities), `*.cert` and `*.key` (client certificate), instead of those in
   * certs.d.
   */
  readonly certDir?: string | undefined;
  readonly caFile?: string | undefined;
  readonly certFile?: string | undefined;
  readonly keyFile?: string | undefined;

  /** `[scheme://]host[:port][/path]`, tried in order before the registry itself. */
  readonly mirrors?: readonly string[] | undefined;
  /** The only version of the protocol to use. Default: 2, and 1 if the registry does not know 2. */
  readonly registryVersion?: 1 | 2 | undefined;

  /** Retries of a request. Default: 5. */
  readonly retry?: number | undefined;
  /** Milliseconds before the first retry, doubled for each further one. Default: 500. */
  readonly retryDelay?: number | undefined;
  /** The queue in which all requests wait, those for layers too. Default: a new one with 7 slots. */
  readonly requests?: RequestQueue | undefined;
  readonly timeouts?: Partial<Timeouts> | undefined;
  readonly manifestStore?: ManifestStore | undefined;
  /**
   * Send no requests: manifests and configs come from `manifestStore`. `hint` is for errors about missing
   * ones.
   */
  readonly offline?: { readonly hint: string } | undefined;
  /** Collects the secrets of this session; the caller masks them in its output. */
  readonly secrets?: Secrets | undefined;
  /** Aborts the session; each blob has another signal besides. */
  readonly signal?: AbortSignal | undefined;
  /** Directories that replace `/etc` as the parents of `containers/` and `docker/`. */
  readonly configDirs?: readonly string[] | undefined;
}

/** Settings of all requests of a session. */
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

/** Returns the policy with the defaults: 5 retries, the first after 500 ms. */
export function retryPolicyOf({
  retry = 5,
  retryDelay = 500,
}: Pick<RegistryOptions, 'retry' | 'retryDelay'>): RetryPolicy {
  return { retries: retry, delay: retryDelay };
}

/** Requests at the same time: as many as the original's parallel pulls. */
export const DEFAULT_CONNECTIONS = 7;
