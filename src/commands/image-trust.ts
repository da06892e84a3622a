import type { Signer } from '../oci/artifact.ts';
import type { Digest } from '../oci/digest.ts';
import type { Image, Session } from '../oci/image.ts';
import type { PullOptions } from '../options.ts';
import type { SignatureSearch } from '../trust/search.ts';
import type { WantedSigners } from '../trust/signers.ts';

/** The checks of an image before the first of its layers is requested. Without demands none of their code is loaded. */
export class ImageTrust {
  readonly #signers: WantedSigners;
  readonly #search: SignatureSearch;
  readonly #offline: PullOptions['offline'];

  private constructor(signers: WantedSigners, search: SignatureSearch, offline: PullOptions['offline']) {
    this.#signers = signers;
    this.#search = search;
    this.#offline = offline;
  }

  /**
   * Undefined where nothing is demanded of the image.
   *
   * @throws UsageError for keys and other files that cannot be used
   */
  static async open(
    { signers, signal, offline }: Pick<PullOptions, 'signers' | 'signal' | 'offline'>,
    session: Session,
  ): Promise<ImageTrust | undefined> {
    if (Object.values(signers).every((value) => value === undefined)) return undefined;
    const [{ WantedSigners: wanted }, { SignatureSearch: search }] = await Promise.all([
      import('../trust/signers.ts'),
      import('../trust/search.ts'),
    ]);
    const read = await wanted.read(signers, signal);
    return read && new ImageTrust(read, new search(session.attachments()), offline);
  }

  /** Requests the signatures of a manifest or index, while the session still looks for the image. */
  begin(digest: Digest): void {
    this.#search.begin(digest);
  }

  /**
   * @param name of the image, for messages
   * @param all every signer, not only the first one that is found
   * @throws UntrustedError, and errors of the registry
   */
  async check(image: Image, name: string, all: boolean): Promise<readonly Signer[]> {
    return await this.#signers.of(image, name, this.#search, all, this.#offline);
  }
}
