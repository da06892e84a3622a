import { IntegrityError } from '../errors.ts';

/**
 * The archive breaks tar's rules. What the parsers of single parts throw says only what is wrong; `TarReader` adds the layer and
 * the entry.
 */
export class MalformedTarError extends IntegrityError {
  constructor(message: string, cause?: unknown) {
    super(message, {
      code: 'MALFORMED_TAR',
      hint: 'the layer is damaged or made by a broken or hostile tool: pull again, or ask whoever built the image',
      cause,
    });
  }
}
