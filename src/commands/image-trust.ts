import type { FileHandle } from 'node:fs/promises';
import { DlrootfsError } from '../errors.ts';
import type { Source } from '../layout/local-source.ts';
import type { Attachments, Signer } from '../oci/artifact.ts';
import type { Digest } from '../oci/digest.ts';
import type { Image, Session } from '../oci/image.ts';
import type { Reference } from '../oci/reference.ts';
import type { PullOptions } from '../options.ts';
import type { ChosenRequirements } from '../trust/policy.ts';
import { findPolicy, readPolicy } from '../trust/policy-file.ts';
import type { SignaturePlaces } from '../trust/registries-d.ts';
import type { SignatureSearch } from '../trust/search.ts';
import type { WantedSigners } from '../trust/signers.ts';

/** The image to check. */
export interface TrustedSource {
  /** `name:tag` or `name@digest`, or a local source as it was typed: for messages. */
  readonly reference: string;
  /** The name in a registry, or the place on this machine. */
  readonly parsed: Reference | Source;
  readonly session: Pick<Session, 'attachments'>;
  readonly temporaryFile: () => Promise<FileHandle>;
}

/**
 * Checks an image before the first of its layers is requested: by the policy of the host, and by the signers
 * that the caller demands. Modules for checks that are not demanded are not loaded.
 */
export class ImageTrust {
  readonly #source: TrustedSource;
  readonly #options: PullOptions;
  readonly #attachments: () => Promise<Attachments | undefined>;
  readonly #search: SignatureSearch;
  readonly #signers: WantedSigners | undefined;
  readonly #policy: HostPolicy | undefined;

  private constructor(
    source: TrustedSource,
    options: PullOptions,
    search: typeof SignatureSearch,
    signers: WantedSigners | undefined,
    policy: HostPolicy | undefined,
  ) {
    this.#source = source;
    this.#options = options;
    let attachments: Promise<Attachments | undefined> | undefined;
    this.#attachments = () => (attachments ??= source.session.attachments());
    this.#search = new search(this.#attachments);
    this.#signers = signers;
    this.#policy = policy;
  }

  /**
   * Returns undefined if neither a policy nor the caller demands anything.
   *
   * @throws UsageError for keys and other files that cannot be used; UntrustedError for a policy that cannot
   * be used or rejects the image
   */
  static async open(
    source: TrustedSource,
    options: PullOptions,
    use: 'inspect' | 'read',
  ): Promise<ImageTrust | undefined> {
    const policy = await refusedOnlyToRead(use, options, () => HostPolicy.open(source, options));
    const signers = await wantedSigners(options);
    if (!signers && !policy) return undefined;
    const { SignatureSearch: search } = await import('../trust/search.ts');
    return new ImageTrust(source, options, search, signers, policy);
  }

  /** Requests the signatures of a manifest or index, while the session still resolves the image. */
  begin(digest: Digest): void {
    if (this.#signers) this.#search.begin(digest, 'find');
    else if (this.#policy?.wantsTags) this.#search.begin(digest, 'tagged');
  }

  /**
   * Checks the image; returns its signers if the caller demands some.
   *
   * @param use `inspect` finds all signers, and reports what the policy says without refusing the image
   * @throws UntrustedError, and errors of the registry
   */
  async check(image: Image, use: 'inspect' | 'read'): Promise<readonly Signer[] | undefined> {
    const { reference } = this.#source;
    const { offline } = this.#options;
    await refusedOnlyToRead(use, this.#options, () => this.#checkPolicy(image));
    return await this.#signers?.of(image, reference, this.#search, use === 'inspect', offline);
  }

  async #checkPolicy(image: Image): Promise<void> {
    if (!this.#policy) return;
    const { reference: name, parsed, temporaryFile } = this.#source;
    const { signal, report, offline, environment } = this.#options;
    const { file, signatures } = this.#policy;
    const chosen = this.#policy.chosenFor(image);
    const { checkRequirements } = await import('../trust/policy-check.ts');
    await checkRequirements(image, {
      name,
      file,
      chosen,
      signatures,
      environment,
      temporaryFile,
      signal,
      offline,
      reference: 'transport' in parsed ? undefined : parsed,
      search: this.#search,
      attachments: this.#attachments,
    });
    report({ type: 'debug', message: `the policy ${file} accepts ${name} (${chosen.scope})` });
  }
}

async function wantedSigners({ signers, signal }: PullOptions): Promise<WantedSigners | undefined> {
  if (Object.values(signers).every((value) => value === undefined)) return undefined;
  const { WantedSigners: wanted } = await import('../trust/signers.ts');
  return await wanted.read(signers, signal);
}

/**
 * Runs `check`. For `inspect` its failure becomes a notice: no layer is read, and as with skopeo no policy
 * refuses that.
 */
async function refusedOnlyToRead<T>(
  use: 'inspect' | 'read',
  { report, signal }: Pick<PullOptions, 'report' | 'signal'>,
  check: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await check();
  } catch (error) {
    if (use === 'read' || signal.aborted || !(error instanceof DlrootfsError)) throw error;
    report({ type: 'notice', message: `a pull is refused: ${error.message}` });
    return undefined;
  }
}

/** The requirements of policy.json for one image. */
class HostPolicy {
  readonly file: string;
  /** For an archive on standard input the transport is known only after it was read. */
  readonly chosenFor: (image: Image) => ChosenRequirements;
  /** Where a signature must be; undefined where none is required, and for what is in no registry. */
  readonly signatures: SignaturePlaces | undefined;
  /** Signatures under the tags of cosign will be looked at. */
  readonly wantsTags: boolean;

  private constructor(
    file: string,
    chosenFor: HostPolicy['chosenFor'],
    signatures?: SignaturePlaces,
    wantsTags = false,
  ) {
    this.file = file;
    this.chosenFor = chosenFor;
    this.signatures = signatures;
    this.wantsTags = wantsTags;
  }

  /**
   * Returns undefined where the policy accepts anything, and where no policy exists.
   *
   * @throws UntrustedError for a file that cannot be used, and for an image that it rejects
   */
  static async open(source: TrustedSource, options: PullOptions): Promise<HostPolicy | undefined> {
    const { policy: given, environment, registry, report, signal, uid } = options;
    if (given === false) return undefined;
    const places = { environment, configDirs: registry.configDirs, uid };
    const file = given ?? findPolicy(places);
    const none = (message: string): undefined => {
      report({ type: 'debug', message });
      return undefined;
    };
    if (file === undefined) return none('the host has no policy.json: any image is accepted');
    const policy = await readPolicy(file, given !== undefined, signal);
    const [{ requirementsFor }, { scopesOf }] = await Promise.all([
      import('../trust/policy.ts'),
      import('../trust/scopes.ts'),
    ]);
    const { parsed, reference: name } = source;
    if ('transport' in parsed && parsed.transport === 'stdin')
      return new HostPolicy(file, ({ digest }) =>
        requirementsFor(policy, digest === undefined ? 'docker-archive' : 'oci-archive', []),
      );
    const { transport, scopes } = scopesOf(parsed);
    const chosen = requirementsFor(policy, transport, scopes);
    const types = chosen.requirements.map(({ type }) => type);
    if (types.includes('reject')) {
      // Refused before any request.
      const { refusedAlways } = await import('../trust/policy-check.ts');
      throw refusedAlways({ name, file, chosen });
    }
    if (types.every((type) => type === 'insecureAcceptAnything'))
      return none(`the policy ${file} accepts any image (${chosen.scope})`);
    if ('transport' in parsed || !types.some((type) => type === 'signedBy' || type === 'sigstoreSigned'))
      return new HostPolicy(file, () => chosen);
    const { readSignaturePlaces } = await import('../trust/registries-d.ts');
    const signatures = await readSignaturePlaces(scopes, places, signal);
    const wantsTags = signatures.attachments && types.includes('sigstoreSigned');
    return new HostPolicy(file, () => chosen, signatures, wantsTags);
  }
}
