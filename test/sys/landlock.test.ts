import assert from 'node:assert/strict';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { describe, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { openKernelEntry } from '../../src/sys/kernel-entry.ts';
import { type Confinement, giveUpWriting, rightsOf } from '../../src/sys/landlock.ts';
import { openSystemCalls, systemCalls } from '../../src/sys/system-calls.ts';
import { Scratch } from '../support/program.ts';
import type { Attempts } from './confined-thread.ts';

const version = systemCalls()?.landlock_create_ruleset(0, 0, 1) ?? -1;
const skip = version < 2 && 'needs a kernel with Landlock 2 (Linux 5.19)';

interface Answers {
  readonly confinement: Confinement;
  readonly answers: readonly Readonly<Record<string, string>>[];
  readonly written: string;
  readonly child?: string;
}

/** Makes a directory for the attempts of confined-thread.ts. */
function prepare(directory: string): string {
  for (const name of ['', 'sub', 'empty']) mkdirSync(`${directory}/${name}`);
  for (const name of ['file', 'moved']) writeFileSync(`${directory}/${name}`, 'content');
  return directory;
}

async function attempt(given: Attempts): Promise<Answers> {
  const thread = new Worker(new URL('confined-thread.ts', import.meta.url), { workerData: given });
  return await new Promise((resolve, reject) => thread.once('message', resolve).once('error', reject));
}

/** Returns all attempts with their expected errors: the denied ones, by code. */
const denied = (answers: Readonly<Record<string, string>> = {}): Record<string, string> =>
  Object.fromEntries(Object.entries(answers).filter(([, answer]) => answer !== 'ok'));

describe('a thread that gives up writing', { skip }, () => {
  const everything = {
    'make a file': 'EACCES',
    'write a file': 'EACCES',
    ...(version >= 3 && { 'truncate a file': 'EACCES' }),
    'make a directory': 'EACCES',
    'make a symlink': 'EACCES',
    'link to another directory': 'EACCES',
    rename: 'EACCES',
    'remove a directory': 'EACCES',
    'remove a file': 'EACCES',
  };

  test('beneath a directory keeps it there, and nowhere else', async () => {
    using scratch = new Scratch();
    const inside = prepare(scratch.join('inside'));
    const outside = prepare(scratch.join('outside'));
    const open = openSync(scratch.join('open'), 'w');
    const { confinement, answers, written } = await attempt({ inside, places: [inside, outside], open });
    assert.deepEqual(confinement, { version });
    assert.deepEqual(answers.map(denied), [{}, everything]);
    assert.equal(written, 'ok');
    closeSync(open);
  });

  test('everywhere can still write open files; this thread and others can do all', async () => {
    using scratch = new Scratch();
    const place = prepare(scratch.join('place'));
    const open = openSync(scratch.join('open'), 'w');
    const { answers, written, child } = await attempt({ inside: undefined, places: [place], open });
    assert.deepEqual(answers.map(denied), [everything]);
    assert.equal(written, 'ok');
    assert.equal(child, 'EACCES');
    closeSync(open);
    assert.equal(readFileSync(scratch.join('open'), 'utf8'), 'x');
    writeFileSync(`${place}/made`, 'by another thread');
  });
});

test('the rights that each version can take away', () => {
  const [EXECUTE, WRITE_FILE, REFER, TRUNCATE] = [1, 2, 0x2000, 0x4000];
  assert.deepEqual([-constants.errno.ENOSYS, -constants.errno.EOPNOTSUPP, 0, 1].map(rightsOf), [0, 0, 0, 0]);
  assert.equal(rightsOf(2), 0x3ff3);
  for (const later of [3, 4, 5, 6, 7, 20]) assert.equal(rightsOf(later), 0x7ff3, String(later));
  assert.equal(rightsOf(2) & (EXECUTE | WRITE_FILE | REFER), EXECUTE | WRITE_FILE | REFER);
  assert.equal(rightsOf(2) & TRUNCATE, 0);
});

describe('goes on', { skip: !systemCalls() && 'needs Linux on x64 or arm64' }, () => {
  const cases = {
    ENOSYS: 'this kernel has no Landlock (ENOSYS)',
    EOPNOTSUPP: 'Landlock was not enabled when the system was started (EOPNOTSUPP)',
    EPERM: 'the system forbids Landlock (EPERM)',
    EINVAL: `Landlock failed with errno ${constants.errno.EINVAL}`,
  } as const;
  for (const [code, reason] of Object.entries(cases)) {
    test(`where landlock_create_ruleset answers ${code}`, () => {
      const calls = openSystemCalls((...given) => {
        const entry = openKernelEntry(...given);
        const answer = -constants.errno[code as keyof typeof cases];
        return {
          ...entry,
          call: (number, ...rest) => (number === 444 ? answer : entry.call(number, ...rest)),
        };
      });
      assert.deepEqual(giveUpWriting(undefined, calls), { reason });
    });
  }

  test('where Landlock is of version 1, which forbids links between directories', () => {
    const calls = openSystemCalls((...given) => {
      const entry = openKernelEntry(...given);
      return { ...entry, call: (number, ...rest) => (number === 444 ? 1 : entry.call(number, ...rest)) };
    });
    assert.deepEqual(giveUpWriting(undefined, calls), { reason: 'Landlock is of version 1' });
  });
});
