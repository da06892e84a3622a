/** Compressed data is malformed. Callers that know the layer turn this into an IntegrityError. */
export class MalformedDataError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'MalformedDataError';
  }
}

export const ENDS_EARLY = 'ends too early';
export const TRAILING_BYTES = 'is followed by extra bytes';

/** The longest window, as a power of two in bytes: 128 MiB, what the zstd program takes without `--long`. */
export const WINDOW_LOG_MAX = 27;
export const WINDOW_TOO_LARGE = 'needs a window of more than 128 MiB, the limit';
