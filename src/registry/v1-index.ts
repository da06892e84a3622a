import { NetworkError } from '../errors.ts';
import { parseJson } from '../oci/json.ts';
import { readAtMost } from './http/body.ts';
import type { Timeouts } from './registry-options.ts';
import type { Tokens } from './v1-authorization.ts';
import { parseEndpoints, parseTokens, type RepositoryData } from './v1-repository.ts';
import type { V1Server } from './v1-server.ts';

/** Of the list of images, which is read to know that an index answers, and otherwise of no use. */
const MAX_IMAGES_BYTES = 16 * 1024 * 1024;

/** The index of registry version 1, as far as one repository is concerned: where its images are, and the token to get them. */
export class V1Index implements Tokens {
  readonly #server: V1Server;
  readonly #repository: string;
  readonly #mayUseHttp: (host: string) => boolean;
  readonly #timeouts: Timeouts;
  #token: string | undefined;
  #renewing: Promise<void> | undefined;

  /** @param repository with its name space: `library/x` */
  constructor(
    server: V1Server,
    repository: string,
    mayUseHttp: (host: string) => boolean,
    timeouts: Timeouts,
  ) {
    this.#server = server;
    this.#repository = repository;
    this.#mayUseHttp = mayUseHttp;
    this.#timeouts = timeouts;
  }

  get token(): string | undefined {
    return this.#token;
  }

  /** Asks for the repository. Throws NetworkError when nothing in what it names as registries is one. */
  async repository(signal: AbortSignal): Promise<RepositoryData> {
    const subject = `the list of images of ${this.#repository}`;
    const { base } = this.#server;
    const data = await this.#server.ask(
      { path: `repositories/${this.#repository}/images`, headers: { 'x-docker-token': 'true' }, subject },
      async (response) => {
        const body = await readAtMost(response, MAX_IMAGES_BYTES, this.#timeouts, signal);
        if (!Array.isArray(parseJson(body, subject))) {
          throw new NetworkError(`${subject} from ${base.host} is not a JSON array`, {
            hint: 'is this a container registry?',
          });
        }
        return {
          token: parseTokens(response.headers('x-docker-token')),
          endpoints: parseEndpoints(response.headers('x-docker-endpoints'), base, this.#mayUseHttp),
        };
      },
      signal,
    );
    if (data.endpoints.length === 0) {
      throw new NetworkError(`the index ${base.host} names nothing as registry that is a host`);
    }
    this.#token = data.token;
    return data;
  }

  async renew(old: string, signal: AbortSignal): Promise<void> {
    if (this.#token !== old) return;
    this.#renewing ??= this.repository(signal)
      .then(() => undefined)
      .finally(() => {
        this.#renewing = undefined;
      });
    await this.#renewing;
  }
}
