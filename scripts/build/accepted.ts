// Prints the names of code caches in TRAINING_DIRECTORY that V8 rejects. It runs in a separate process with
// the flags of the executable. A rejected cache only costs time, so no other check would show it.
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
