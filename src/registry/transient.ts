import { NetworkError, RateLimitError, type DlrootfsError, type ErrorDetails } from '../errors.ts';

/** How long the server asked to wait, in milliseconds. */
interface Wait {
  readonly retryAfter?: number | undefined;
}

/** A failure that another try may heal: a reset, a time-out, 408, a 5xx answer, a body that broke off. */
export class TransientError extends NetworkError {
  readonly retryAfter: number | undefined;
  constructor(message: string, details: ErrorDetails & Wait = {}) {
    super(message, details);
    this.retryAfter = details.retryAfter;
  }
}

/** A storage address, which a registry redirected to, is refused: its signature may have run out, and the next try gets another. */
export function refusedByStorage(refusal: DlrootfsError): TransientError {
  return new TransientError(refusal.message, {
    hint: 'the storage that the registry sends us to refuses: run it again, and if it stays so tell who runs the registry',
    cause: refusal,
  });
}

/** 429: waiting may help. */
export class TooManyRequestsError extends RateLimitError {
  readonly retryAfter: number | undefined;
  constructor(message: string, details: ErrorDetails & Wait = {}) {
    super(message, details);
    this.retryAfter = details.retryAfter;
  }
}

/** Whether another try of what failed with `error` makes sense; for errors of requests and of bodies. */
export function isTransient(error: unknown): error is TransientError | TooManyRequestsError {
  return error instanceof TransientError || error instanceof TooManyRequestsError;
}
