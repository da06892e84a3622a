// Tells whether V8 takes the code caches that training.ts has left in TRAINING_DIRECTORY, in a process of its own under the flags of the
// executable: prints the names of those that it turns down. One that is turned down costs nothing but time, so nothing else would show it.
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
