import type { Writable } from 'node:stream';
import { Progress, describeProgress } from './progress.ts';
import type { LiveReport } from './terminal.ts';

const everyMilliseconds = 5000;

/** A line about the whole every few seconds, for logs; a pull that ends sooner prints none. */
export function plainReport(err: Writable): LiveReport {
  const progress = new Progress();
  let timer: NodeJS.Timeout | undefined;
  const stop = () => clearInterval(timer);
  return {
    report: (event) => {
      progress.add(event, performance.now());
      if (event.type === 'image') {
        timer = setInterval(
          () => err.write(`${describeProgress(progress, performance.now())}\n`),
          everyMilliseconds,
        ).unref();
      }
      if (event.type === 'done') stop();
    },
    stop,
  };
}
