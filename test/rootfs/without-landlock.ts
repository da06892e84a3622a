/**
 * Makes a kernel without Landlock for the program and its threads, if it is loaded before them (`node
 * --import`).
 */
import { constants } from 'node:os';
import { systemCalls } from '../../src/sys/system-calls.ts';

const calls = systemCalls();
if (calls) Object.assign(calls, { landlock_create_ruleset: () => -constants.errno.ENOSYS });
