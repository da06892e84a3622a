import { spawn, type ChildProcess } from 'node:child_process';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { PullOutcome, PullRequest } from './pull-layers.ts';

const program = fileURLToPath(new URL('pull-layers.ts', import.meta.url));

export interface RunOptions {
  readonly uid?: number;
  readonly gid?: number;
  readonly cwd?: string;
  /** Words before the program, such as `unshare --user`. */
  readonly under?: readonly string[];
}

/** Writes layers as files into `directory`, readable for all users; returns their paths. */
export function writeLayers(directory: string, layers: readonly Uint8Array[]): string[] {
  chmodSync(directory, 0o755);
  return layers.map((layer, index) => {
    const path = join(directory, `layer-${index}.tar`);
    writeFileSync(path, layer, { mode: 0o644 });
    return path;
  });
}

export function startPull(request: PullRequest, options: RunOptions = {}): ChildProcess {
  const { under = [], ...others } = options;
  const words = [...under, process.execPath, program, JSON.stringify(request)];
  return spawn(words[0]!, words.slice(1), { stdio: ['ignore', 'pipe', 'inherit'], ...others });
}

/** Runs a pull in a separate process. */
export async function runPull(request: PullRequest, options: RunOptions = {}): Promise<PullOutcome> {
  const child = startPull(request, options);
  let text = '';
  child.stdout!.setEncoding('utf8').on('data', (piece: string) => (text += piece));
  await new Promise((resolve, reject) => {
    child.once('close', resolve);
    child.once('error', reject);
  });
  return JSON.parse(text) as PullOutcome;
}
