import { createServer, type Socket } from 'node:net';
import { LocalServer, onRequest } from '../support/local-server.ts';
import type { Random } from './random.ts';
import { mutateBytes, oddText } from './mutate.ts';

/**
 * Replaced by the server's port in requests and responses; it has the same length, so that sizes remain
 * right.
 */
export const PORT = '00000';

/**
 * The responses for a path, byte for byte: the first request gets the first, and later ones the next; the
 * last one is repeated.
 */
export interface RawAnswer {
  readonly bytes: Buffer;
  /**
   * The connection is closed, stays open, or sends zeros after the bytes. `interim` sends endless interim
   * responses instead.
   */
  readonly after?: 'close' | 'stay' | 'zeros' | 'interim';
}

export type Site = Readonly<Record<string, readonly RawAnswer[]>>;

/** A response before it is encoded. */
export interface Response {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
}

export function encode({ status, headers, body }: Response): RawAnswer {
  const lines = Object.entries({ ...headers, 'content-length': String(body.length) });
  return { bytes: rawAnswer(`HTTP/1.1 ${status} X`, lines, body), after: 'stay' };
}

function rawAnswer(
  statusLine: string,
  headers: readonly (readonly [string, string])[],
  body: Uint8Array,
): Buffer {
  const head = [statusLine, ...headers.map(([name, value]) => `${name}: ${value}`)].join('\r\n');
  return Buffer.concat([Buffer.from(`${head}\r\n\r\n`, 'latin1'), body]);
}

const statusLines = [
  'HTTP/1.1 200',
  'HTTP/1.1 200 ',
  'HTTP/1.0 200 OK',
  'HTTP/2 200',
  'HTTP/1.1 000 Zero',
  'HTTP/1.1 999 Nine',
  'HTTP/1.1 99999 Long',
  'HTTP/1.1 101 Switching Protocols',
  'HTTP/1.1 103 Early Hints',
  'HTTP/1.1 204 No Content',
  'HTTP/1.1 206 Partial Content',
  'HTTP/1.1 301 Moved',
  'HTTP/1.1 304 Not Modified',
  'HTTP/1.1 307 Moved',
  'HTTP/1.1 400 Bad',
  'HTTP/1.1 401 Unauthorized',
  'HTTP/1.1 403 Forbidden',
  'HTTP/1.1 404 Not Found',
  'HTTP/1.1 407 Proxy',
  'HTTP/1.1 416 Range',
  'HTTP/1.1 429 Too Many',
  'HTTP/1.1 451 Legal',
  'HTTP/1.1 500 Error',
  'HTTP/1.1 503 Busy',
  'ICY 200 OK',
  '',
];

const oddHeaders: readonly (readonly [name: string, values: readonly string[]])[] = [
  ['content-length', ['0', '-1', '1', '99999999', '1e3', '0x10', '18446744073709551616', '5, 5', '']],
  ['transfer-encoding', ['chunked', 'gzip, chunked', 'identity', 'chunked, chunked']],
  ['content-encoding', ['gzip', 'br', 'deflate', 'zstd', 'identity', 'x']],
  ['content-type', ['text/html', '', 'application/json; charset=utf-16', 'a/b;'.repeat(1000)]],
  ['content-range', ['bytes 0-0/1', 'bytes 5-1/2', 'bytes */*', 'bytes 0-99999999999/*', 'items 0-1/2']],
  ['accept-ranges', ['bytes', 'none']],
  ['etag', ['"x"', 'W/"x"', '']],
  ['location', ['/v2/', `http://127.0.0.1:${PORT}/loop`, '//[', 'file:///etc/passwd', 'http://:99999/', '']],
  ['retry-after', ['0', '-1', '1e9', 'Fri, 31 Dec 1999 23:59:59 GMT', 'soon']],
  [
    'www-authenticate',
    [
      `Bearer realm="http://127.0.0.1:${PORT}/token",service="x",scope="repository:lib/img:pull"`,
      `Bearer realm="http://127.0.0.1:${PORT}/token`,
      'Bearer realm="file:///etc/passwd"',
      'Bearer',
      'Basic realm="x"',
      'Basic realm="x", Bearer realm="y"',
      'Negotiate',
      `Digest ${'a="b",'.repeat(2000)}`,
    ],
  ],
  ['docker-content-digest', ['sha256:x', `sha256:${'0'.repeat(64)}`, 'md5:0']],
  ['docker-distribution-api-version', ['registry/2.0', 'registry/1.0']],
  ['set-cookie', ['a=b', 'session=x; Domain=.; Path=/', 'x'.repeat(5000), '__proto__=1']],
  ['link', ['</v2/lib/img/tags/list?last=a>; rel="next"', '<http://[>; rel=next', '<>', ';']],
  ['warning', ['299 - "careful"', '299 - "\u001b[2J"', 'x']],
  ['x-docker-token', ['Token signature=x,repository="a",access=read', '', '"']],
  ['x-docker-endpoints', [`127.0.0.1:${PORT}`, ',', 'a,b,c', 'http://x/y', '']],
  ['x-docker-size', ['-1', '0', '99999999999']],
  ['x-docker-checksum-payload', ['sha256:0', '["sha256:0"]', '']],
  ['connection', ['close', 'keep-alive', 'upgrade']],
  ['ratelimit-limit', ['100;w=21600', ';;', '-1']],
  ['x-big', ['v'.repeat(20_000), 'v'.repeat(200_000)]],
];

function chunked(random: Random, body: Uint8Array): Buffer {
  const size = random.pick([body.length.toString(16), 'zz', '-1', 'ffffffffffffffff', '0', '1;ext=1', '']);
  const end = random.pick(['\r\n0\r\n\r\n', '\r\n', '', '\r\n0\r\nTrailer: x\r\n\r\n']);
  return Buffer.concat([Buffer.from(`${size}\r\n`), body, Buffer.from(end)]);
}

/** Encodes the response as a broken or hostile server does. */
export function mutateAnswer(random: Random, { status, headers, body }: Response): RawAnswer {
  const lines = Object.entries({ ...headers, 'content-length': String(body.length) });
  let statusLine = `HTTP/1.1 ${status} X`;
  let content: Uint8Array = body;
  for (let n = 0; n <= random.below(3); n += 1) {
    const kind = random.below(7);
    const [name, values] = random.pick(oddHeaders);
    const value = random.percent(85) ? random.pick(values) : oddText(random);
    if (kind === 0) statusLine = random.pick(statusLines);
    else if (kind === 1) lines.push([name, value]);
    else if (kind === 2) lines.splice(random.below(lines.length), 1, [name, value]);
    else if (kind === 3) lines.push(['transfer-encoding', 'chunked']);
    else if (kind === 4) content = random.bytes(random.below(2000));
    else if (kind === 5) lines.push([oddText(random), oddText(random)]);
    else for (let m = 0; m < random.pick([10, 300, 3000]); m += 1) lines.push([`x-${m}`, 'y']);
  }
  if (lines.some(([name, value]) => name === 'transfer-encoding' && value === 'chunked')) {
    if (random.percent(70))
      lines.splice(0, lines.length, ...lines.filter(([name]) => name !== 'content-length'));
    content = chunked(random, content);
  }
  const bytes = rawAnswer(statusLine, lines, content);
  const after = random.percent(3) ? random.pick(['zeros', 'interim', 'stay'] as const) : 'close';
  const head = bytes.indexOf('\r\n\r\n') + 4;
  return {
    bytes: random.percent(25)
      ? Buffer.concat([mutateBytes(random, bytes.subarray(0, head)), bytes.subarray(head)])
      : bytes,
    after,
  };
}

/** Largest number of zeros after a response. */
const ENDLESS_BYTES = 256 * 2 ** 20;
const INTERIM_PAUSE_MILLISECONDS = 20;

/** A server on loopback that sends given bytes. */
export class SiteServer implements AsyncDisposable {
  #server!: LocalServer;
  #site: Site = {};
  readonly #counts = new Map<string, number>();

  static async start(): Promise<SiteServer> {
    const site = new SiteServer();
    const connected = (socket: Socket) => onRequest(socket, (target) => site.#answer(socket, target));
    site.#server = await LocalServer.start(createServer(connected));
    // Ports below 10000 are shorter than their placeholder.
    while (site.port.length !== PORT.length) {
      await site.#server[Symbol.asyncDispose]();
      site.#server = await LocalServer.start(createServer(connected));
    }
    return site;
  }

  get port(): string {
    return String(this.#server.port);
  }

  /** Serves this site from now on, and nothing else. */
  serve(site: Site): void {
    this.#site = site;
    this.#counts.clear();
    this.#server.closeConnections();
  }

  #answer(socket: Socket, target: string): void {
    const path = target.split('?')[0]!;
    const answers = this.#site[path] ?? this.#site['*'];
    const count = this.#counts.get(path) ?? 0;
    this.#counts.set(path, count + 1);
    const answer = answers?.[Math.min(count, answers.length - 1)];
    if (answer === undefined) {
      socket.write('HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n');
      return;
    }
    if (answer.after === 'interim') {
      sendInterim(socket);
      return;
    }
    const text = answer.bytes.toString('latin1').replaceAll(`127.0.0.1:${PORT}`, `127.0.0.1:${this.port}`);
    socket.write(Buffer.from(text, 'latin1'));
    if ((answer.after ?? 'close') === 'close') socket.end();
    else if (answer.after === 'zeros') sendZeros(socket, ENDLESS_BYTES);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server[Symbol.asyncDispose]();
  }
}

function sendZeros(socket: Socket, left: number): void {
  if (left <= 0 || socket.destroyed) socket.end();
  else socket.write(Buffer.alloc(65_536), () => sendZeros(socket, left - 65_536));
}

function sendInterim(socket: Socket): void {
  const timer = setInterval(() => socket.write('HTTP/1.1 100 Continue\r\n\r\n'), INTERIM_PAUSE_MILLISECONDS);
  socket.on('close', () => clearInterval(timer));
}
