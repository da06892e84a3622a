import { IntegrityError } from '../errors.ts';

/**
 * The bytes of a blob are not what its digest, size or entity tag says. They are no longer in the store, so another pull of the same
 * image downloads the blob again: worth one more attempt, see `withoutCorruptBlobs`.
 */
export class CorruptBlobError extends IntegrityError {
  /** Which of the image's blobs it is, for people and for comparing. */
  readonly blob: string;

  constructor(blob: string, reason = 'it is corrupt') {
    super(`${blob}: ${reason}`, { code: 'DIGEST_MISMATCH' });
    this.blob = blob;
  }
}

/** The bytes of a download are not those of the blob. Whoever knows which blob it is turns this into a CorruptBlobError. */
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
