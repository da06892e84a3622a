import { setImmediate } from 'node:timers/promises';

/** How long the event loop may have to wait for us, in milliseconds. */
const LONGEST_TURN = 3;

/** For long loops, so that all else goes on. */
export interface Breath {
  /** Whether it is time to take one. */
  isDue(): boolean;
  /** Lets the event loop run if it is time, and throws the signal's reason. */
  take(): Promise<void>;
}

export function openBreath(signal: AbortSignal | undefined): Breath {
  let turnEnds = performance.now() + LONGEST_TURN;
  const isDue = (): boolean => performance.now() > turnEnds;
  return {
    isDue,
    take: async () => {
      if (!isDue()) return;
      await setImmediate();
      signal?.throwIfAborted();
      turnEnds = performance.now() + LONGEST_TURN;
    },
  };
}
