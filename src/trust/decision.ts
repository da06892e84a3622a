import { NetworkError, RateLimitError, UnauthorizedError } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import type { Image } from '../oci/image.ts';
import { reasonFor } from './refusal.ts';
import { type Found, type Signature, signaturesOf } from './search.ts';

/** What was found about the signatures of an image. */
export interface Verdict<T> {
  /** One for each signature that counts. */
  readonly accepted: readonly T[];
  /** Why others do not count. */
  readonly reasons: readonly string[];
  /** The first error after which nothing is known about the signatures. */
  readonly unanswered: unknown;
}

/**
 * Looks at the signatures of the indexes that lead to a manifest, the outermost one first, and of the manifest.
 *
 * @param check throws errors of any kind: the reason why a signature does not count
 * @param all look at every signature; else up to the first one that counts
 */
export async function judge<T>(
  { digest, indexes = [] }: Pick<Image, 'digest' | 'indexes'>,
  find: (digest: Digest) => Promise<Found>,
  check: (signature: Signature, digest: Digest) => T | Promise<T>,
  all: boolean,
): Promise<Verdict<T>> {
  const accepted: T[] = [];
  const reasons: string[] = [];
  let unanswered: unknown;
  const note = (error: unknown, place?: string): void => {
    reasons.push(place === undefined ? reasonFor(error) : `${place}: ${reasonFor(error)}`);
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

/** Nothing is known about the signatures without this answer of the registry. */
function isUnanswered(error: unknown): boolean {
  if (error instanceof NetworkError) return error.code !== 'BODY_TOO_LARGE';
  return error instanceof UnauthorizedError || error instanceof RateLimitError;
}

/** Reasons that an error lists; of more it tells the number. */
const MOST_REASONS = 10;

/** For an error. */
export function listed(reasons: readonly string[]): string {
  const first = reasons.slice(0, MOST_REASONS);
  if (reasons.length > MOST_REASONS) first.push(`and ${reasons.length - MOST_REASONS} more`);
  return first.join('; ');
}
