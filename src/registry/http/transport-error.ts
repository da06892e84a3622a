import { DlrootfsError, NetworkError, printable } from '../../errors.ts';
import { hostnameOf } from './loopback.ts';
import { TransientError } from '../transient.ts';

/** The answer stopped in the middle. */
export class StalledError extends Error {
  /** @param time milliseconds that it was waited */
  constructor(time: number) {
    super(`next to nothing came for ${Math.round(time / 1000)} s`);
  }
}

/** No final status came in time. */
export class SilentError extends Error {
  /** @param time milliseconds that it was waited */
  constructor(time: number) {
    super(`no final status within ${Math.round(time / 1000)} s`);
  }
}

/** `code` of errors whose cause is that the other side does not speak TLS. */
export const NOT_TLS = 'NOT_TLS';
/** `code` of errors whose cause is that the other side does not speak plain HTTP. */
export const NOT_HTTP = 'NOT_HTTP';
const CERTIFICATE = 'CERTIFICATE';
export const REFUSED = 'REFUSED';
/** `code` of errors whose cause is that no connection came about in time. */
export const UNREACHABLE = 'UNREACHABLE';
/** The connection broke before or while an answer came. */
export const BROKEN = 'BROKEN';

const certificateCodes =
  /^(?:CERT_|UNABLE_TO_|SELF_SIGNED_CERT|DEPTH_ZERO_|ERR_TLS_CERT_|HOSTNAME_MISMATCH|INVALID_CA|PATH_LENGTH|ERR_PROXY_TLS)/;
const wantsCertificate = /ALERT_(?:CERTIFICATE_REQUIRED|BAD_CERTIFICATE|HANDSHAKE_FAILURE|UNKNOWN_CA)/;
const notTls = /WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|HTTP_REQUEST|RECORD_LAYER_FAILURE/;

/** Whether a certificate could not be traced to a known authority: with more authorities it may be. */
export function isUnknownAuthority(error: unknown): boolean {
  return /^(?:UNABLE_TO_|SELF_SIGNED_CERT|DEPTH_ZERO_)/.test(codeOf(error));
}

function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return '';
  if ('code' in error && typeof error.code === 'string') return error.code;
  return error.cause === undefined ? '' : codeOf(error.cause);
}

function reasonOf(error: Error): string {
  const inner = error instanceof AggregateError ? error.errors : [];
  const texts = inner.map((each: unknown) => (each instanceof Error ? each.message : '')).filter(Boolean);
  return printable(texts.join('; ') || error.message, 300);
}

/**
 * What a failure below HTTP means to a person: an error to act on, transient where another try may heal it. Errors that are
 * neither of the network nor of ours come back as they are.
 *
 * @param inBody the head of the answer had come
 * @param proxy `host:port` of the proxy on the way: what cannot be connected to is that
 */
export function transportError(
  error: unknown,
  url: URL,
  { inBody, proxy }: { readonly inBody: boolean; readonly proxy?: string | undefined },
): unknown {
  if (!(error instanceof Error) || error instanceof DlrootfsError) return error;
  const host = proxy === undefined ? url.host : `${url.host} (through the proxy ${proxy})`;
  const peer = proxy === undefined ? url.host : `the proxy ${proxy}`;
  const name = proxy === undefined ? url.hostname : hostnameOf(proxy);
  const check = proxy === undefined ? 'the name of the registry' : 'HTTPS_PROXY and HTTP_PROXY';
  const code = codeOf(error);
  const cause = error;
  if (error instanceof StalledError) {
    return new TransientError(`${host} stopped sending: ${error.message}`, { code: 'STALLED', cause });
  }
  if (error instanceof SilentError) {
    return new TransientError(`${host} took a request and did not answer in time: ${error.message}`, {
      code: 'SILENT',
      cause,
    });
  }
  const refusal = /Proxy (?:response|Authentication Required) \((\d+)\)/.exec(error.message);
  if (refusal) return proxyError(refusal[1]!, url.host, cause);
  if (certificateCodes.test(code)) return certificateError(cause, host, url.host);
  if (wantsCertificate.test(code)) {
    const wants = code.endsWith('CERTIFICATE_REQUIRED');
    const message = wants
      ? 'wants a client certificate'
      : `refused the TLS handshake (${printable(code, 80)})`;
    const hint = `${wants ? '' : 'if it wants a client certificate, '}give one by --cert-file and --key-file, or in certs.d`;
    return new NetworkError(`${host} ${message}`, { code: CERTIFICATE, hint, cause });
  }
  if (notTls.test(code)) {
    const hint = 'use --plain-http if you trust the network to it';
    return new NetworkError(`${host} was asked over https and answered without TLS, as plain http does`, {
      code: NOT_TLS,
      hint,
      cause,
    });
  }
  switch (code) {
    case 'ECONNREFUSED':
      return new TransientError(`nothing listens at ${peer} (connection refused)`, { code: REFUSED, cause });
    case 'ENOTFOUND':
      return new NetworkError(`there is no host ${name}`, {
        hint: `check ${check}`,
        cause,
      });
    case 'EAI_AGAIN':
      return new TransientError(`the name ${name} could not be looked up`, {
        hint: 'check the network and its DNS',
        cause,
      });
    case 'UND_ERR_CONNECT_TIMEOUT':
    case 'ETIMEDOUT':
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
      return new TransientError(`cannot connect to ${peer}: ${reasonOf(error)}`, {
        code: UNREACHABLE,
        cause,
      });
    case 'UND_ERR_HEADERS_TIMEOUT':
      return new TransientError(`${host} took a request and did not answer in time`, {
        code: 'SILENT',
        cause,
      });
    case 'UND_ERR_HEADERS_OVERFLOW':
      return new NetworkError(`${host} sent more headers than any registry`, { cause });
    case 'UND_ERR_SOCKET':
    case 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH':
    case 'ECONNRESET':
    case 'ECONNABORTED':
    case 'EPIPE':
      return new TransientError(`the connection to ${host} broke: ${reasonOf(error)}`, {
        code: BROKEN,
        cause,
      });
    default:
  }
  // undici gives its parser's errors no code. Some answers fail its assertions: a status of 000.
  if (error.name === 'HTTPParserError' || code === 'ERR_ASSERTION') {
    if (inBody)
      return new TransientError(`what ${host} sent is broken: ${reasonOf(error)}`, { code: BROKEN, cause });
    return new NetworkError(`what ${host} answered is not HTTP: ${reasonOf(error)}`, {
      code: NOT_HTTP,
      cause,
    });
  }
  if (code === 'EPROTO' || code.startsWith('ERR_SSL_') || code.startsWith('ERR_TLS_')) {
    return new NetworkError(`no TLS connection to ${host}: ${reasonOf(error)}`, { code: NOT_TLS, cause });
  }
  return code === ''
    ? error
    : new TransientError(`the request to ${host} failed: ${reasonOf(error)}`, { cause });
}

function proxyError(status: string, host: string, cause: Error): NetworkError {
  const message = `the proxy did not connect to ${host} but answered ${status}`;
  if (status === '407') {
    const hint =
      'put the user name and password of the proxy into HTTPS_PROXY or HTTP_PROXY: http://user:password@proxy:3128';
    return new NetworkError(message, { code: 'PROXY_AUTHENTICATION', hint, cause });
  }
  const hint = 'check HTTPS_PROXY and HTTP_PROXY, or name the host in NO_PROXY';
  if (/^5|^429/.test(status)) return new TransientError(message, { hint, cause });
  return new NetworkError(message, { hint, cause });
}

function certificateError(error: Error, peer: string, host: string): NetworkError {
  const hint =
    codeOf(error) === 'CERT_HAS_EXPIRED' || codeOf(error) === 'ERR_TLS_CERT_ALTNAME_INVALID'
      ? 'its operator has to renew it; --tls-verify=false goes on without a check'
      : `put its authority into /etc/docker/certs.d/${host}/ca.crt or name it by --ca-file; --tls-verify=false goes on without a check`;
  return new NetworkError(`the certificate of ${peer} cannot be trusted: ${reasonOf(error)}`, {
    code: CERTIFICATE,
    hint,
    cause: error,
  });
}
