import { createRequire } from 'node:module';

/**
 * koffi where the program runs from its sources or from a package; the single executable brings its own loader in this place.
 *
 * @throws where koffi has no library for this platform
 */
export function loadKoffi(): typeof import('koffi') {
  return createRequire(import.meta.url)('koffi') as typeof import('koffi');
}
