import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { TestEvent } from 'node:test/reporters';

const root = path.join(import.meta.dirname, '..');

/** Returns the names of tests in a file: its lines without empty ones and comments. */
function namesIn(file: string): Set<string> {
  const lines = readFileSync(path.resolve(root, file), 'utf8').split('\n');
  return new Set(lines.filter((line) => line !== '' && !line.startsWith('#')));
}

/**
 * A reporter for node --test: at the end it prints the skipped tests, by reason. ALLOWED_SKIPS in the
 * environment is a file with the names of tests that may be skipped, one per line. With it, any other skipped
 * test makes the run fail.
 */
// oxlint-disable-next-line import/no-default-export -- node --test calls the default export of a reporter
export default async function* skippedTests(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const byReason = new Map<string, string[]>();
  for await (const { type, data } of events) {
    if ((type !== 'test:pass' && type !== 'test:fail') || data.skip === undefined || data.skip === false)
      continue;
    const reason = data.skip === true || data.skip === '' ? 'no reason given' : data.skip;
    const names = byReason.get(reason) ?? [];
    byReason.set(reason, [...names, `${path.relative(root, data.file ?? '')}: ${data.name}`]);
  }
  for (const [reason, names] of byReason)
    yield `\nskipped: ${reason}\n${names.map((name) => `  ${name}\n`).join('')}`;

  const list = process.env['ALLOWED_SKIPS'];
  if (list === undefined) return;
  const allowed = namesIn(list);
  const refused = [...byReason.values()].flat().filter((name) => !allowed.has(name));
  if (refused.length === 0) return;
  process.exitCode = 1;
  yield `\nerror: these tests must not be skipped here; those that may are listed in ${list}:\n${refused.map((name) => `  ${name}\n`).join('')}`;
}
