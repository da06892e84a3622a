import type { Writable } from 'node:stream';
import { printable } from '../errors.ts';
import type { Report } from './event.ts';

/** Notices, and with `verbose` what the program does and why, a line each on standard error. */
export function messageReport(err: Writable, verbose: boolean): Report {
  return (event) => {
    if (event.type === 'notice') err.write(`notice: ${printable(event.message, Infinity)}\n`);
    if (event.type === 'runtime-config')
      err.write(
        `${printable(event.file, Infinity)} is written; start it with: ${printable(event.command, Infinity)}\n`,
      );
    if (event.type === 'debug' && verbose) err.write(`debug: ${printable(event.message, Infinity)}\n`);
  };
}

/** One reporter out of several. */
export function fanOut(reports: readonly Report[]): Report {
  return (event) => {
    for (const report of reports) report(event);
  };
}
