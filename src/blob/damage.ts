import { IntegrityError } from '../errors.ts';

/**
 * A blob turned out to be damaged after some of it had been handed out. It is no longer in the store, and another pull of the same
 * image gets it afresh and checks it before it hands anything out: worth one more try with a new stage.
 */
export class DamagedBlobError extends IntegrityError {
  constructor(message: string) {
    super(message, { code: 'DAMAGED_BLOB', hint: 'run it again: the blob will be fetched afresh' });
  }
}

/** Bytes that came over a connection are not those of the blob; a fresh start may bring the right ones. */
export class WrongBytesError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'WrongBytesError';
  }
}

/** The connection ended too early, or the server sent another stretch than it was asked for. */
export class BrokenTransferError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'BrokenTransferError';
  }
}
