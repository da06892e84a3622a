import type { Writable } from 'node:stream';
import type { PullEvent, Report } from './event.ts';

const shortIdLength = 12;

/**
 * The original's lines on standard output, byte for byte. Layers are applied while later ones still arrive, but
 * the part from `Downloading layers:` on is held back until all are there, so that the order is the original's.
 */
export function textReport(out: Writable): Report {
  let ids: readonly string[] = [];
  let fetched = 0;
  let held: string | undefined = '';

  const told = new Set<string>();

  const say = (text: string) => out.write(text);
  const later = (text: string) => {
    if (held === undefined) say(text);
    else held += text;
  };
  const release = () => {
    if (held === undefined || fetched < ids.length) return;
    say(`Downloading layers:\n${held}`);
    held = undefined;
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
        say(`\tPulling fs layer ${ids[event.index]}\n`);
        break;
      case 'layer-fetched':
        fetched += 1;
        say(`\tDone ${ids[event.index]}\n`);
        release();
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
