import { createRequire } from 'node:module';

/**
 * Loads koffi if the program runs from its sources or a package; the single executable replaces this
 * function.
 *
 * @throws if koffi has no library for this platform
 */
export function loadKoffi(): typeof import('koffi') {
  return createRequire(import.meta.url)('koffi') as typeof import('koffi');
}
