import type { ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

/** A fault of the requests that match. Without other members, the response is the normal one. */
export interface Fault {
  /** Default: any method. */
  readonly method?: string;
  /** Pattern for path and query, for example `/\/blobs\//`. */
  readonly path: RegExp;
  /** Number of matching requests with the fault; default: 1. */
  readonly times?: number;
  /** Number of matching requests before the first one with the fault. */
  readonly skip?: number;

  /** Milliseconds before the response, or before any other fault. */
  readonly delay?: number;
  /**
   * `reset`: the connection is reset before a response. `silent`: no response is sent. `close`: the
   * connection is closed without a response.
   */
  readonly before?: 'reset' | 'silent' | 'close';
  /** Replaces status, headers, body. */
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string | string[]>>;
  readonly body?: string | Uint8Array;
  /** The connection is reset after this many bytes of the body. */
  readonly cutAfter?: number;
  /** After this many bytes of the body, no more are sent. */
  readonly stallAfter?: number;
  /** The body ends cleanly (chunked) after this many bytes. */
  readonly endAfter?: number;
  /** The byte at this offset of the body is flipped. */
  readonly corruptAt?: number;
  /** Bytes per second. */
  readonly rate?: number;
  /** Ends the limit of `rate`: the rest is sent at once. */
  readonly hurry?: AbortSignal;
  /** True: zero bytes without end follow the body. */
  readonly endless?: boolean;
  /** True: the Range header is ignored. */
  readonly ignoreRange?: boolean;
}

/** The faults of a server, tried in their order, at most one for a request. */
export class Faults {
  readonly #all: { readonly fault: Fault; skip: number; times: number }[] = [];

  add(fault: Fault): void {
    this.#all.push({ fault, skip: fault.skip ?? 0, times: fault.times ?? 1 });
  }

  /** Returns the fault of a request; its pattern is compared with `subject`. */
  take(method: string, subject: string): Fault | undefined {
    for (const each of this.#all) {
      const matches = each.fault.path.test(subject) && (each.fault.method ?? method) === method;
      if (!matches || each.times <= 0) continue;
      if (each.skip > 0) {
        each.skip -= 1;
        continue;
      }
      each.times -= 1;
      return each.fault;
    }
    return undefined;
  }
}

/** The normal response, before any fault. */
export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[]>>;
  readonly body: Uint8Array;
}

export function withFault(answer: Answer, fault: Fault | undefined): Answer {
  if (!fault) return answer;
  const replaced = fault.body === undefined ? answer.body : Buffer.from(fault.body);
  let body: Uint8Array = replaced;
  if (fault.corruptAt !== undefined && fault.corruptAt < replaced.length) {
    body = Uint8Array.from(replaced);
    body[fault.corruptAt]! ^= 0xff;
  }
  const headers: Record<string, string | string[]> = { ...answer.headers };
  if (fault.body !== undefined) headers['content-length'] = String(body.length);
  if (fault.endAfter !== undefined || fault.endless) delete headers['content-length'];
  return { status: fault.status ?? answer.status, headers: { ...headers, ...fault.headers }, body };
}

async function write(response: ServerResponse, bytes: Uint8Array): Promise<void> {
  if (response.destroyed || response.write(bytes)) return;
  await new Promise<void>((resolve) => {
    const done = () => {
      response.off('drain', done).off('close', done);
      resolve();
    };
    response.on('drain', done).on('close', done);
  });
}

async function writeSlowly(
  response: ServerResponse,
  bytes: Uint8Array,
  rate: number,
  hurry?: AbortSignal,
): Promise<void> {
  const step = Math.max(1, Math.ceil(rate / 20));
  let at = 0;
  for (; at < bytes.length && !response.destroyed; at += step) {
    if (hurry?.aborted === true) break;
    await write(response, bytes.subarray(at, at + step));
    await sleep(50);
  }
  await write(response, bytes.subarray(at));
}

async function writeForEver(response: ServerResponse): Promise<void> {
  const zeros = Buffer.alloc(65_536);
  while (!response.destroyed) await write(response, zeros);
}

/** Sends a response with a fault. */
export async function send(
  response: ServerResponse,
  answer: Answer,
  fault: Fault | undefined,
): Promise<void> {
  // A response that waits for another one on its connection has no socket yet.
  const socket = response.socket ?? response.req.socket;
  if (fault?.before === 'reset') socket?.resetAndDestroy();
  if (fault?.before === 'close') socket?.destroy();
  if (fault?.before) return;
  response.writeHead(answer.status, answer.headers);
  const stop = fault?.cutAfter ?? fault?.stallAfter ?? fault?.endAfter;
  if (stop === undefined && !fault?.rate && !fault?.endless) {
    response.end(answer.body);
    return;
  }
  response.flushHeaders();
  const bytes = answer.body.subarray(0, stop);
  if (fault?.rate) await writeSlowly(response, bytes, fault.rate, fault.hurry);
  else await write(response, bytes);
  if (fault?.endless) await writeForEver(response);
  // A client may reuse the connection after a shorter body, and would wait for ever.
  if (fault?.stallAfter !== undefined && fault.stallAfter <= answer.body.length) return;
  if (fault?.cutAfter === undefined) response.end();
  // The bytes before the cut must arrive. After a reset at once the kernel could drop them.
  else setTimeout(() => socket?.resetAndDestroy(), 20);
}
