import { setImmediate } from 'node:timers/promises';

/** How long the event loop may have to wait for us, in milliseconds. */
const LONGEST_TURN = 3;

/** For long loops: lets the event loop run in between. */
export interface Yielder {
  /** Whether it is time to take one. */
  readonly isDue: () => boolean;
  /** Lets the event loop run if it is time, and throws the signal's reason. */
  readonly pause: () => Promise<void>;
}

export function openYielder(signal: AbortSignal | undefined): Yielder {
  let turnEnds = performance.now() + LONGEST_TURN;
  const isDue = (): boolean => performance.now() > turnEnds;
  return {
    isDue,
    pause: async () => {
      if (!isDue()) return;
      await setImmediate();
      signal?.throwIfAborted();
      turnEnds = performance.now() + LONGEST_TURN;
    },
  };
}
