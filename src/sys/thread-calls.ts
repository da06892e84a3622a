import type { Worker } from 'node:worker_threads';
import { DestinationError, DlrootfsError, ExitCode, IntegrityError } from '../errors.ts';

/** An error in the form in which threads send it. */
export interface SerializedError {
  readonly message: string;
  readonly exitCode: number;
  readonly code: string;
  readonly hint: string | undefined;
  readonly stack: string | undefined;
}

/** The reply to an order: a value or an error. */
export type Reply<T> = { readonly value: T } | { readonly failure: SerializedError };

/** Runs `work`; returns its result or error as a reply. */
export function replyOf<T>(work: () => T): Reply<T> {
  try {
    return { value: work() };
  } catch (error) {
    return { failure: serializeError(error) };
  }
}

export function serializeError(error: unknown): SerializedError {
  if (error instanceof DlrootfsError) {
    const { message, exitCode, code, hint, stack } = error;
    return { message, exitCode, code, hint, stack };
  }
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  return { message, exitCode: ExitCode.bug, code: 'BUG', hint: undefined, stack };
}

function deserializeError(failure: SerializedError): Error {
  const { message, code, hint, stack } = failure;
  if (failure.exitCode === ExitCode.integrity) return new IntegrityError(message, { code, hint });
  if (failure.exitCode === ExitCode.destination) return new DestinationError(message, { code, hint });
  const error = new Error(message);
  if (stack !== undefined) error.stack = stack;
  return error;
}

/** Gives orders to a thread, one at a time. The thread sends a Reply to each. */
export class ThreadCalls<Order> {
  /** Resolves when the thread has ended. */
  readonly exit: Promise<void>;
  readonly #thread: Worker;
  readonly #onDeath: () => void;
  #waiting = Promise.withResolvers<unknown>();
  #dead: DestinationError | undefined;

  /**
   * @param work the thread's work, for messages: `writes the files`
   * @param onDeath called when the thread has ended, and at each call after that
   */
  constructor(thread: Worker, work: string, onDeath: () => void) {
    this.#thread = thread;
    this.#onDeath = onDeath;
    this.#waiting.resolve(undefined);
    const die = (cause: Error): void => {
      this.#dead ??= new DestinationError(`the thread that ${work} has died: ${cause.message}`, {
        code: 'THREAD_DIED',
        hint: 'run it again; if it dies again, report it with these lines',
        cause,
      });
      onDeath();
      this.#waiting.reject(this.#dead);
    };
    thread.on('message', (message: Reply<unknown> | object) => {
      if ('value' in message) this.#waiting.resolve(message.value);
      else if ('failure' in message) this.#waiting.reject(deserializeError(message.failure));
    });
    thread.on('error', die);
    this.exit = new Promise((resolve) => {
      thread.on('exit', (code) => {
        die(new Error(`it ended with code ${code}`));
        resolve();
      });
    });
  }

  get isDead(): boolean {
    return this.#dead !== undefined;
  }

  /** Resolves when every order has its reply. */
  get settled(): Promise<unknown> {
    return this.#waiting.promise.catch(() => undefined);
  }

  /**
   * Sends an order, and resolves to the value of the reply. A rejection that nothing awaits does no harm.
   *
   * @throws the error of the reply
   * @throws DestinationError if the thread has died
   */
  call(order: Order): Promise<unknown> {
    this.#waiting = Promise.withResolvers();
    const { promise, reject } = this.#waiting;
    promise.catch(() => undefined);
    if (this.#dead) {
      this.#onDeath();
      reject(this.#dead);
    } else this.#thread.postMessage(order, []);
    return promise;
  }
}
