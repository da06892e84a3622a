// Checks whether V8 accepts the code caches of training.ts in TRAINING_DIRECTORY, in a separate process with
// the flags of the executable. Prints the names of rejected ones: a rejected cache only costs time, so
// nothing else would show it.
import { readFileSync, readdirSync } from 'node:fs';
import { Script } from 'node:vm';
import { wrapperHead, wrapperTail } from '../../src/binary/script.ts';

const directory = process.env['TRAINING_DIRECTORY'] ?? '';

for (const cache of readdirSync(directory).filter((name) => name.endsWith('.cache'))) {
  const filename = cache.replace(/\.cache$/, '');
  const source = wrapperHead + readFileSync(`${directory}/${filename}`, 'latin1') + wrapperTail;
  const cachedData = readFileSync(`${directory}/${cache}`);
  if (new Script(source, { filename, cachedData }).cachedDataRejected) process.stdout.write(`${filename}\n`);
}
