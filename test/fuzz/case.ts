import type { Random } from './random.ts';
import type { Site } from './site.ts';

/** A file in the directory of a run before its start; `@WORK@` in a text or link is that directory. */
export interface Placed {
  readonly path: string;
  readonly type: 'file' | 'directory' | 'symlink' | 'fifo' | 'gone';
  readonly content?: Buffer;
}

/** One run of the program as data, which can be stored and run again. */
export interface Case {
  readonly argv: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly stdin?: Buffer;
  readonly files?: readonly Placed[];
  readonly site?: Site;
}

/** A text that no output may have. */
export const PASSWORD = 'S3cretPassw0rd';

/** A special file instead of a plain one. */
export function specialFile(random: Random, path: string): Placed {
  const targets = [
    '@WORK@/outside/canary',
    '@WORK@/outside',
    '/dev/zero',
    '/dev/full',
    '/proc/self/mem',
    'x',
  ];
  return random.pick([
    { path, type: 'gone' },
    { path, type: 'directory' },
    { path, type: 'fifo' },
    { path, type: 'symlink', content: Buffer.from(random.pick(targets)) },
  ] as const);
}
