import type { Random } from './random.ts';
import type { Site } from './site.ts';

/**
 * Something that is put into the directory of a run before it; `@WORK@` in a text or link is that directory.
 */
export interface Placed {
  readonly path: string;
  readonly type: 'file' | 'directory' | 'symlink' | 'fifo' | 'gone';
  readonly content?: Buffer;
}

/** One run of the program, as data: it can be kept and run again. */
export interface Case {
  readonly argv: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly stdin?: Buffer;
  readonly files?: readonly Placed[];
  readonly site?: Site;
}

/** Must be in no output. */
export const PASSWORD = 'S3cretPassw0rd';

/** Something else where a plain file is expected. */
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
