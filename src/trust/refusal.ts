import { DlrootfsError, printable } from '../errors.ts';
import { osErrorOf } from '../sys/os-error.ts';

/** The reason why one signature is refused; another may be valid. */
export class Refusal extends Error {}

/** Signatures were not looked at, since there are too many. */
export class TooMany extends Refusal {}

/** Longest reason, in characters. */
const MAX_REASON = 300;

/**
 * Returns the printable reason in an error of a check. Parsers of certificates and bundles throw errors of
 * any kind.
 */
export function reasonFor(error: unknown): string {
  if (error instanceof Refusal || error instanceof DlrootfsError) return printable(error.message, MAX_REASON);
  const system = osErrorOf(error)?.text;
  if (system !== undefined) return system;
  const { message, cause, fields } = error as {
    readonly message?: unknown;
    readonly cause?: unknown;
    /** Set by ValidationError of @sigstore/bundle. */
    readonly fields?: unknown;
  };
  let because = '';
  if (cause instanceof Error) because = ` (${cause.message})`;
  else if (Array.isArray(fields)) because = `: ${fields.join(', ')}`;
  return printable(typeof message === 'string' ? message + because : 'it is malformed', MAX_REASON);
}
