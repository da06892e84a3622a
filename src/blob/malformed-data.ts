/** Compressed data is not what its format says. Whoever knows which layer it is turns this into an IntegrityError. */
export class MalformedDataError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'MalformedDataError';
  }
}

export const ENDS_EARLY = 'ends too early';
export const TRAILING_BYTES = 'is followed by bytes that do not belong to it';
