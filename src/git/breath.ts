import { setImmediate } from 'node:timers/promises';

/** How long the event loop may have to wait for us, in milliseconds. */
const longestTurn = 3;

/** A function to be called in long loops: lets the event loop run where it has waited, and throws the signal's reason. */
export function breath(signal: AbortSignal | undefined): () => Promise<void> {
  let turnEnds = performance.now() + longestTurn;
  return async () => {
    if (performance.now() <= turnEnds) return;
    await setImmediate();
    signal?.throwIfAborted();
    turnEnds = performance.now() + longestTurn;
  };
}
