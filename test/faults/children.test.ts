// A program that dlrootfs started ends with it, also after `kill -9`.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createReadStream, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { diskPrograms } from '../support/disk.ts';
import { findProgram, missing } from '../support/debian.ts';
import { Setting } from './setting.ts';

for (const [format, program, flags] of diskPrograms)
  for (const signal of ['SIGKILL', 'SIGTERM'] as const)
    test(`${signal} while ${program} works: it ends too`, { skip: missing(program) }, async () => {
      await using setting = await Setting.open();
      const fifo = setting.scratch.join('fifo');
      assert.equal(spawnSync('mkfifo', [fifo]).status, 0);
      // This script replaces the program: it prints the program's version, or reports its start and then runs
      // until it is killed.
      const script = [
        '#!/bin/sh',
        `case "$*" in -[vV]|-version|--version) exec ${findProgram(program)} "$@";; esac`,
        `exec 9>'${fifo}'`,
        'echo working >&9',
        'exec sleep 1000',
      ];
      writeFileSync(setting.scratch.join(program), script.join('\n'), { mode: 0o755 });
      const run = setting.start(['-o', `x.${format}`, ...flags], {
        environment: { PATH: `${setting.scratch.path}:${process.env['PATH']}` },
      });
      // The reader sees the end when no process has the FIFO open.
      const reader = createReadStream(fifo);
      await once(reader, 'data');
      run.kill(signal);
      reader.resume();
      await Promise.all([once(reader, 'close'), run.result]);
    });
