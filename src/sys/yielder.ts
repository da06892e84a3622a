import { setImmediate } from 'node:timers/promises';

/** Milliseconds for which a loop may block the event loop. */
const MAX_TURN = 3;

/** Lets the event loop run during long loops. */
export interface Yielder {
  /** True if it is time for a pause. */
  readonly isDue: () => boolean;
  /** Lets the event loop run if a pause is due, and throws the signal's reason. */
  readonly pause: () => Promise<void>;
}

export function openYielder(signal: AbortSignal | undefined): Yielder {
  let turnEnds = performance.now() + MAX_TURN;
  const isDue = (): boolean => performance.now() > turnEnds;
  return {
    isDue,
    pause: async () => {
      if (!isDue()) return;
      await setImmediate();
      signal?.throwIfAborted();
      turnEnds = performance.now() + MAX_TURN;
    },
  };
}
