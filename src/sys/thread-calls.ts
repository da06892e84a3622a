import type { Worker } from 'node:worker_threads';
import { DestinationError } from '../errors.ts';

/** The calls of a thread that answers each message once, before the next one is sent. */
export class ThreadCalls<Message, Answer> {
  readonly #thread: Worker;
  #waiting = Promise.withResolvers<Answer>();
  #dead: DestinationError | undefined;

  /**
   * @param work that the thread does, for messages: `writes the files`
   * @param onDeath called when the thread has ended
   */
  constructor(thread: Worker, work: string, onDeath: () => void) {
    this.#thread = thread;
    const die = (cause: Error): void => {
      this.#dead ??= new DestinationError(`the thread that ${work} has died: ${cause.message}`, {
        code: 'THREAD_DIED',
        hint: 'run it again; if it dies again, report it with these lines',
        cause,
      });
      onDeath();
      this.#waiting.promise.catch(() => undefined);
      this.#waiting.reject(this.#dead);
    };
    thread.on('error', die);
    thread.on('exit', (code) => die(new Error(`it ended with code ${code}`)));
  }

  get isDead(): boolean {
    return this.#dead !== undefined;
  }

  /**
   * Sends a message.
   *
   * @throws DestinationError when the thread has died
   */
  async call(message: Message): Promise<Answer> {
    this.#waiting = Promise.withResolvers();
    if (this.#dead) throw this.#dead;
    this.#thread.postMessage(message, []);
    return await this.#waiting.promise;
  }

  /** The thread has answered. */
  answer(answer: Answer): void {
    this.#waiting.resolve(answer);
  }
}
