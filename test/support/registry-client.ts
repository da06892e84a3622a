import type { BlobRange, Image, RemoteLayer, Session } from '../../src/oci/image.ts';
import { Reference } from '../../src/oci/reference.ts';
import type { RegistryOptions } from '../../src/registry/registry-options.ts';
import { openSession } from '../../src/registry/session.ts';
import type { PullEvent } from '../../src/report/event.ts';

/** Returns all items of an iterable. */
export async function collect<T>(iterable: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const each of iterable) all.push(each);
  return all;
}

/** Options of a session. By default times are short and the environment is empty. */
export type ClientOptions = Partial<RegistryOptions> & { readonly signal?: AbortSignal };

/** A session with all events that it reported. */
export class RegistryClient implements AsyncDisposable {
  readonly events: PullEvent[] = [];
  readonly session: Session<RemoteLayer>;
  readonly signal: AbortSignal;

  private constructor(session: Session<RemoteLayer>, events: PullEvent[], signal: AbortSignal) {
    this.session = session;
    this.events = events;
    this.signal = signal;
  }

  static async open(reference: string, options: ClientOptions = {}): Promise<RegistryClient> {
    const events: PullEvent[] = [];
    const { signal = new AbortController().signal, ...rest } = options;
    const session = await openSession(Reference.parse(reference), {
      environment: {},
      configDirs: [],
      retryDelay: 1,
      report: (event) => events.push(event),
      signal,
      ...rest,
    });
    return new RegistryClient(session, events, signal);
  }

  image(platform = { os: 'linux', architecture: 'amd64' }): Promise<Image<RemoteLayer>> {
    return this.session.image(platform);
  }

  tags(): Promise<string[]> {
    return collect(this.session.tags());
  }

  /** Returns a layer's blob, or the rest of it, in one request. */
  async blob(layer: RemoteLayer, range: BlobRange = { start: 0 }): Promise<Buffer> {
    const { body } = await layer.open(range, this.signal);
    return Buffer.concat(await collect(body));
  }

  /** Resolves the image and reads every layer. */
  async pull(): Promise<Buffer[]> {
    const { layers } = await this.image();
    return Promise.all(layers.map((layer) => this.blob(layer)));
  }

  get notices(): string[] {
    return this.events.flatMap((event) => (event.type === 'notice' ? [event.message] : []));
  }

  /** All reported events as one text, to search it for secrets. */
  get everything(): string {
    return JSON.stringify(this.events);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.session.close();
  }
}
