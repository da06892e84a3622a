import { after, before } from 'node:test';
import { type Item, tar } from './archive.ts';
import { FakeRegistry } from './fake-registry.ts';

/** One registry for all tests of a file. */
export interface ImageRegistry {
  readonly registry: FakeRegistry;
  /** Pushes an image; returns its reference. */
  readonly pushed: (...layers: readonly (readonly Item[])[]) => string;
}

/** Starts a registry before the first test of the file, and ends it after the last one. */
export function registryForAllTests(): ImageRegistry {
  let started: FakeRegistry | undefined;
  let images = 0;
  before(async () => {
    started = await FakeRegistry.start();
  });
  after(async () => {
    await started?.[Symbol.asyncDispose]();
  });
  return {
    get registry() {
      return started!;
    },
    pushed: (...layers) => {
      images += 1;
      started!.push('lib/img', String(images), { layers: layers.map((items) => ({ tar: tar(...items) })) });
      return started!.reference('lib/img', String(images));
    },
  };
}
