/** Explains failures of TLS, TCP and DNS, and of the HTTP protocol. */
import { hostnameOf } from '../../oci/reference.ts';
import { DlrootfsError, type ErrorDetails, NetworkError, printable, TransientError } from '../../errors.ts';
import { textOf } from '../../oci/json.ts';
import { osErrorByCode } from '../../sys/os-error.ts';
import { inSeconds } from '../../sys/retry.ts';
import type { Proxy } from './proxy.ts';

/**
 * Returns the error for a slow server: a body delivered too few bytes within the stall timeout, or no final
 * status came in time.
 *
 * @param time milliseconds of waiting
 */
export function slowError(code: 'STALLED' | 'SILENT', time: number): Error {
  const what = code === 'STALLED' ? 'hardly any data arrived for' : 'no final status within';
  return Object.assign(new Error(`${what} ${Math.round(time / 1000)} s`), { code });
}

/** `code` of errors: the server does not speak TLS. */
export const NOT_TLS = 'NOT_TLS';
/** `code` of errors: the server does not speak plain HTTP. */
export const NOT_HTTP = 'NOT_HTTP';
export const REFUSED = 'REFUSED';
/** `code` of errors: no connection was made in time. */
export const UNREACHABLE = 'UNREACHABLE';
/** `code` of errors: the connection broke before or in the answer. */
export const BROKEN = 'BROKEN';
const CERTIFICATE = 'CERTIFICATE';

/**
 * True if the error is about a certificate of an unknown authority: with more authorities it may be known.
 */
export function isUnknownAuthority(error: unknown): boolean {
  if (!(error instanceof NetworkError) || error.code !== CERTIFICATE) return false;
  return /^(?:UNABLE_TO_|SELF_SIGNED_CERT|DEPTH_ZERO_)/.test(codeOf(error.cause));
}

function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return '';
  // undici gives its parser's errors no code.
  if (error.name === 'HTTPParserError') return 'HTTP_PARSER';
  const proxy = /Proxy (?:response|Authentication Required) \((\d+)\)/.exec(error.message);
  if (proxy) return `PROXY_${proxy[1]}`;
  if ('code' in error && typeof error.code === 'string') return error.code;
  return codeOf(error.cause);
}

const UNKNOWN_AUTHORITY = 'its authority is unknown on this machine';

/**
 * Reasons that replace the words of Node, undici and OpenSSL, by their codes; sys/os-error.ts has those of
 * errno(3).
 */
const NETWORK_REASONS: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: 'it has expired',
  CERT_NOT_YET_VALID: 'it is not valid yet',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'it is self-signed',
  SELF_SIGNED_CERT_IN_CHAIN: UNKNOWN_AUTHORITY,
  UNABLE_TO_GET_ISSUER_CERT: UNKNOWN_AUTHORITY,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNKNOWN_AUTHORITY,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNKNOWN_AUTHORITY,
  UND_ERR_HEADERS_TIMEOUT: 'no headers came in time',
  ERR_ASSERTION: 'its status line is invalid',
};

/** An error of Node, OpenSSL or undici. */
type Cause = Error & {
  readonly code?: unknown;
  readonly reason?: unknown;
  readonly host?: string;
  readonly cert?: { readonly subjectaltname?: string };
};

/** Returns the error, its cause, the cause of that, and so on. */
function causes(error: Error): readonly Cause[] {
  return error.cause instanceof Error ? [error, ...causes(error.cause)] : [error];
}

function transportReason(error: Error, code: string): string {
  const chain = causes(error);
  const known =
    NETWORK_REASONS[code] ??
    wrongName(chain) ??
    connectTimeout(chain) ??
    // OpenSSL's reason, without file names and numbers.
    chain.map(({ reason }) => textOf(reason)).find(Boolean) ??
    osErrorByCode(code)?.words;
  if (known !== undefined) return printable(known, 300);
  const inner = error instanceof AggregateError ? error.errors : [];
  const texts = inner.map((each: unknown) => (each instanceof Error ? each.message : '')).filter(Boolean);
  return printable(texts.join('; ') || error.message, 300);
}

/** Returns the reason if the certificate is for other hosts. */
function wrongName(chain: readonly Cause[]): string | undefined {
  const { cert, host } = chain.find(({ code }) => code === 'ERR_TLS_CERT_ALTNAME_INVALID') ?? {};
  const names = cert?.subjectaltname?.replaceAll(/\b(?:DNS|IP Address|URI):/g, '');
  return names !== undefined && host !== undefined ? `it is for ${names}, not for ${host}` : undefined;
}

function connectTimeout(chain: readonly Cause[]): string | undefined {
  const found = chain.find(({ code }) => code === 'UND_ERR_CONNECT_TIMEOUT');
  if (found === undefined) return undefined;
  const milliseconds = /timeout: (\d+)ms/.exec(found.message)?.[1];
  return `no connection ${milliseconds === undefined ? 'in time' : `within ${inSeconds(Number(milliseconds))}`}`;
}

/** A failed exchange, for the texts of the table below. */
interface Failure {
  /** A code of Node, OpenSSL or undici. */
  readonly code: string;
  readonly reason: string;
  /** `host[:port]` of the server. */
  readonly host: string;
  /** The server, and the proxy if there is one. */
  readonly server: string;
  /** The other end of the connection: the server or the proxy. */
  readonly peer: string;
  /** `peer` without the port. */
  readonly name: string;
  /** The environment variable that names the proxy, if there is one. */
  readonly proxyVariable: string | undefined;
}

interface Row {
  /** Matches codes of Node, OpenSSL and undici. */
  readonly codes: RegExp;
  /** Matches only after the head of the answer. */
  readonly inBody?: true;
  readonly transient?: true;
  /** The code of the resulting error. */
  readonly code?: string;
  readonly message: (failure: Failure) => string;
  readonly hint?: string | ((failure: Failure) => string);
}

/** Returns the hint for a failure of the proxy; undefined without a proxy. */
const checkProxy = ({ proxyVariable }: Failure) => proxyVariable && `check ${proxyVariable}`;
const checkTunnel = (failure: Failure) => `${checkProxy(failure)}, or name the host in NO_PROXY`;
/** Hints for certificates that fail for another reason than their authority. */
const CERTIFICATE_HINTS = new Map([
  ['CERT_HAS_EXPIRED', 'ask its operator to renew it'],
  ['CERT_NOT_YET_VALID', 'set the clock of this machine'],
  ['ERR_TLS_CERT_ALTNAME_INVALID', 'use the name that the certificate is for'],
]);
const noTunnel = ({ host, code }: Failure) =>
  `the proxy did not connect to ${host}: it answered ${code.slice(6)}`;
/** With HTTP_PROXY alone, https uses no proxy. */
const BEHIND_PROXY = 'behind a proxy, set HTTPS_PROXY (HTTP_PROXY is for plain http)';

const CERTIFICATE_CODES = new RegExp(
  '^(?:CERT_|UNABLE_TO_|SELF_SIGNED_CERT|DEPTH_ZERO_|ERR_TLS_CERT_|HOSTNAME_MISMATCH|INVALID_CA|' +
    'PATH_LENGTH|ERR_PROXY_TLS)',
);

/** The first row that matches counts. */
const FAILURE_ROWS: readonly Row[] = [
  {
    codes: /^PROXY_407$/,
    code: 'PROXY_AUTHENTICATION',
    message: noTunnel,
    hint: ({ proxyVariable }) =>
      `put the credentials of the proxy into ${proxyVariable}: http://user:password@proxy:3128`,
  },
  {
    codes: /^PROXY_(?:5|429)/,
    transient: true,
    message: noTunnel,
    hint: checkTunnel,
  },
  {
    codes: /^PROXY_/,
    message: noTunnel,
    hint: checkTunnel,
  },
  {
    codes: /^STALLED$/,
    transient: true,
    code: 'STALLED',
    message: ({ server, reason }) => `${server} stopped sending: ${reason}`,
  },
  {
    codes: /^(?:SILENT|UND_ERR_HEADERS_TIMEOUT)$/,
    transient: true,
    code: 'SILENT',
    message: ({ server, reason }) => `${server} did not answer in time: ${reason}`,
  },
  {
    codes: CERTIFICATE_CODES,
    code: CERTIFICATE,
    message: ({ server, reason }) => `cannot trust the certificate of ${server}: ${reason}`,
    hint: ({ code, host }) => {
      const addAuthority = `put its authority into /etc/containers/certs.d/${host}/ca.crt, name it by --ca-file`;
      return `${CERTIFICATE_HINTS.get(code) ?? addAuthority}, or skip the check with --tls-verify=false`;
    },
  },
  {
    codes: /ALERT_CERTIFICATE_REQUIRED$/,
    code: CERTIFICATE,
    message: ({ server }) => `${server} requires a client certificate`,
    hint: 'give one by --cert-file and --key-file, or in certs.d',
  },
  {
    codes: /ALERT_(?:BAD_CERTIFICATE|HANDSHAKE_FAILURE|UNKNOWN_CA)/,
    code: CERTIFICATE,
    message: ({ server, code }) => `${server} refused the TLS handshake (${printable(code, 80)})`,
    hint: 'if it requires a client certificate, give one by --cert-file and --key-file, or in certs.d',
  },
  {
    codes: /WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|HTTP_REQUEST|RECORD_LAYER_FAILURE/,
    code: NOT_TLS,
    message: ({ server }) => `${server} speaks plain HTTP, not HTTPS`,
    hint: 'use --plain-http if you trust the network',
  },
  {
    codes: /^ECONNREFUSED$/,
    transient: true,
    code: REFUSED,
    message: ({ peer }) => `cannot connect to ${peer}: connection refused`,
    hint: (failure) => checkProxy(failure) ?? 'check host and port',
  },
  {
    codes: /^ENOTFOUND$/,
    message: ({ name }) => `cannot resolve ${name}: no such host`,
    hint: (failure) => {
      // For Hub the user named no host.
      const isHub = /docker\.(?:io|com)$/.test(failure.name);
      const about = isHub ? '' : 'the name of the registry, ';
      return checkProxy(failure) ?? `check ${about}the network and its DNS; ${BEHIND_PROXY}`;
    },
  },
  {
    codes: /^EAI_AGAIN$/,
    transient: true,
    message: ({ name }) => `cannot resolve ${name}: temporary failure of DNS`,
    hint: (failure) => checkProxy(failure) ?? `check the network and its DNS; ${BEHIND_PROXY}`,
  },
  {
    codes: /^(?:UND_ERR_CONNECT_TIMEOUT|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH)$/,
    transient: true,
    code: UNREACHABLE,
    message: ({ peer, reason }) => `cannot connect to ${peer}: ${reason}`,
    hint: (failure) => checkProxy(failure) ?? `check host and port, and the network; ${BEHIND_PROXY}`,
  },
  {
    codes: /^UND_ERR_HEADERS_OVERFLOW$/,
    message: ({ server }) => `${server} sent more than 16 KiB of headers`,
  },
  {
    codes: /^(?:UND_ERR_SOCKET|UND_ERR_RES_CONTENT_LENGTH_MISMATCH|ECONNRESET|ECONNABORTED|EPIPE)$/,
    transient: true,
    code: BROKEN,
    message: ({ server, reason }) => `the connection to ${server} broke: ${reason}`,
  },
  {
    // Some answers, such as one with the status 000, fail an assertion of undici.
    codes: /^(?:HTTP_PARSER|ERR_ASSERTION)$/,
    inBody: true,
    transient: true,
    code: BROKEN,
    message: ({ server, reason }) => `cannot parse the answer of ${server}: ${reason}`,
  },
  {
    codes: /^(?:HTTP_PARSER|ERR_ASSERTION)$/,
    code: NOT_HTTP,
    message: ({ server, reason }) => `${server} does not speak HTTP: ${reason}`,
  },
  {
    codes: /^(?:EPROTO$|ERR_SSL_|ERR_TLS_)/,
    code: NOT_TLS,
    message: ({ server, reason }) => `cannot set up TLS with ${server}: ${reason}`,
  },
  {
    codes: /^(?:EMFILE|ENFILE)$/,
    message: ({ server, reason }) => `the request to ${server} failed: ${reason}`,
    hint: 'raise the limit of open files (ulimit -n)',
  },
  {
    codes: /./,
    transient: true,
    message: ({ server, reason }) => `the request to ${server} failed: ${reason}`,
  },
];

/**
 * Turns a failed exchange into a NetworkError with a hint. Returns a DlrootfsError, and an error that has no
 * code of the network, unchanged.
 *
 * @param inBody true after the head of the answer
 * @param proxy the proxy of the connection, if any
 */
export function transportError(
  error: unknown,
  url: URL,
  { inBody, proxy }: { readonly inBody: boolean; readonly proxy?: Proxy | undefined },
): unknown {
  if (!(error instanceof Error) || error instanceof DlrootfsError) return error;
  const { host, hostname } = url;
  const code = codeOf(error);
  const row = FAILURE_ROWS.find((each) => each.codes.test(code) && (each.inBody !== true || inBody));
  if (!row) return error;
  const failure: Failure = {
    code,
    reason: transportReason(error, code),
    host,
    server: proxy ? `${host} (through the proxy ${proxy.url.host})` : host,
    peer: proxy ? `the proxy ${proxy.url.host}` : host,
    name: proxy ? `the proxy ${hostnameOf(proxy.url.host)}` : hostname,
    proxyVariable: proxy?.variable,
  };
  const details: ErrorDetails = {
    ...(row.code !== undefined && { code: row.code }),
    hint: typeof row.hint === 'function' ? row.hint(failure) : row.hint,
    cause: error,
  };
  const message = row.message(failure);
  return row.transient ? new TransientError(message, details) : new NetworkError(message, details);
}
