import { NetworkError, RateLimitError, UnauthorizedError } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import type { Image } from '../oci/image.ts';
import { reasonFor, TooMany } from './refusal.ts';
import { type FoundSignatures, type Signature, signaturesOf } from './search.ts';

/** The result of checking the signatures of an image. */
export interface Verdict<T> {
  /** One per valid signature. */
  readonly accepted: readonly T[];
  /** The reasons why others were refused. */
  readonly reasons: readonly string[];
  /** The first error of the registry that leaves open whether the image is signed; undefined without one. */
  readonly unanswered: unknown;
}

/**
 * Checks the signatures of the indexes that lead to a manifest, the outermost first, and of the manifest.
 *
 * @param check throws errors of any kind: the reason why a signature is refused
 * @param all check every signature; else stop at the first valid one
 */
export async function judge<T>(
  { digest, indexes = [] }: Pick<Image, 'digest' | 'indexes'>,
  find: (digest: Digest) => Promise<FoundSignatures>,
  check: (signature: Signature, digest: Digest) => T | Promise<T>,
  all: boolean,
): Promise<Verdict<T>> {
  const accepted: T[] = [];
  const reasons: string[] = [];
  let unanswered: unknown;
  const note = (error: unknown, place?: string): void => {
    const reason = reasonFor(error);
    if (!(error instanceof TooMany)) reasons.push(place === undefined ? reason : `${place}: ${reason}`);
    // It comes first, and once: an error lists only some reasons.
    else if (!reasons.includes(reason)) reasons.unshift(reason);
    if (isUnanswered(error)) unanswered ??= error;
  };
  for (const signed of [...indexes, ...(digest === undefined ? [] : [digest])]) {
    const { candidates, failures } = await find(signed);
    for (const failure of failures) note(failure);
    for await (const signature of signaturesOf(candidates)) {
      try {
        if ('error' in signature) throw signature.error;
        accepted.push(await check(signature, signed));
      } catch (error) {
        note(error, signature.place);
      }
      if (accepted.length > 0 && !all) return { accepted, reasons, unanswered };
    }
  }
  return { accepted, reasons, unanswered };
}

/** True if the registry did not answer, so that signatures may exist. */
function isUnanswered(error: unknown): boolean {
  if (error instanceof NetworkError) return error.code !== 'BODY_TOO_LARGE';
  return error instanceof UnauthorizedError || error instanceof RateLimitError;
}

/** The largest number of reasons that an error lists. */
const MAX_REASONS = 10;

/** Joins the reasons for an error. */
export function listed(reasons: readonly string[]): string {
  const first = reasons.slice(0, MAX_REASONS);
  if (reasons.length > MAX_REASONS) first.push(`and ${reasons.length - MAX_REASONS} more`);
  return first.join('; ');
}
