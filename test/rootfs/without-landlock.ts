/** Loaded before the program (`node --import`), also in its threads: the kernel seems to have no Landlock. */
import { constants } from 'node:os';
import { systemCalls } from '../../src/sys/system-calls.ts';

const calls = systemCalls();
if (calls) Object.assign(calls, { landlock_create_ruleset: () => -constants.errno.ENOSYS });
