import { createRequire } from 'node:module';

/**
 * koffi where the program runs from its sources or from a package; the single executable has a loader of its own instead.
 *
 * @throws where koffi has no library for this platform
 */
export function loadKoffi(): typeof import('koffi') {
  return createRequire(import.meta.url)('koffi') as typeof import('koffi');
}
