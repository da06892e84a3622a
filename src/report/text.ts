import type { Writable } from 'node:stream';
import { osPath } from '../sys/os-path.ts';
import type { PullEvent, Report } from './event.ts';

const shortIdLength = 12;

/**
 * The original's lines on standard output, byte for byte. Layers are applied while later ones still arrive, but
 * the part from `Downloading layers:` on is held back until all are there, so that the order is the original's.
 */
export function textReport(out: Writable): Report {
  let ids: readonly string[] = [];
  let fetched = 0;
  /** The next layer whose start is to be told: base first, whichever was found first. */
  let next = 0;
  const started = new Set<number>();
  const done = new Set<number>();
  let held: string | undefined = '';

  const told = new Set<string>();

  const say = (text: string) => out.write(osPath(text));
  const later = (text: string) => {
    if (held === undefined) say(text);
    else held += text;
  };
  const release = () => {
    if (held === undefined || fetched < ids.length) return;
    say(`Downloading layers:\n${held}`);
    held = undefined;
  };

  const tellDone = (index: number) => {
    fetched += 1;
    say(`\tDone ${ids[index]}\n`);
    release();
  };

  return (event: PullEvent) => {
    if ('index' in event) {
      // A pull that starts again, without a blob that was damaged in the store, says nothing twice.
      const line = `${event.type} ${event.index}`;
      if (told.has(line)) return;
      told.add(line);
    }
    switch (event.type) {
      case 'session':
        say(`Opening a session for ${event.name} ...\n`);
        break;
      case 'image':
        ids = event.layers.map((layer) => layer.id.slice(0, shortIdLength));
        say(`Image ID: ${event.id}\nPulling ${ids.length} layers:\n`);
        release();
        break;
      case 'layer-start':
        started.add(event.index);
        for (; started.has(next); next += 1) {
          say(`\tPulling fs layer ${ids[next]}\n`);
          if (done.has(next)) tellDone(next);
        }
        break;
      case 'layer-fetched':
        done.add(event.index);
        if (event.index < next) tellDone(event.index);
        break;
      case 'layer-apply':
        later(`\t${ids[event.index]} ... `);
        break;
      case 'layer-applied':
        later('done\n');
        break;
      case 'done':
        say(`\nRootfs of ${event.reference} in ${event.destination}\n`);
        break;
      default:
    }
  };
}
