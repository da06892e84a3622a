import { spawn } from 'node:child_process';
import { openSync, closeSync, readFileSync } from 'node:fs';

/** One run of one candidate. */
export interface Sample {
  /** Seconds from start to exit. */
  readonly wallSeconds: number;
  /** User and system time of every process that was waited for. */
  readonly cpuSeconds: number;
  /** Memory of the largest single process. */
  readonly rssMiB: number;
  readonly exitCode: number;
}

export interface Command {
  /** The script, for bash. */
  readonly script: string;
  readonly environment: NodeJS.ProcessEnv;
  /** The file for its output. */
  readonly log: string;
  readonly timeoutSeconds: number;
  /** The script repeats the command this many times; the sample is for one repetition. */
  readonly repeat: number;
}

/**
 * Runs a command under GNU time. Its intermediate process is necessary: the peak memory of a child of Node is
 * never less than Node's own, which the kernel keeps across exec.
 */
export async function sample(command: Command): Promise<Sample> {
  const output = openSync(command.log, 'w');
  const usage = `${command.log}.time`;
  const started = process.hrtime.bigint();
  const child = spawn('/usr/bin/time', ['-q', '-o', usage, '-f', '%U %S %M', 'bash', '-c', command.script], {
    detached: true,
    env: command.environment,
    stdio: ['ignore', output, output],
  });
  const timer = setTimeout(() => process.kill(-child.pid!, 'SIGKILL'), command.timeoutSeconds * 1000);
  try {
    const exitCode = await new Promise<number>((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code) => resolve(code ?? 137));
    });
    const wallSeconds = Number(process.hrtime.bigint() - started) / 1e9;
    const [user = NaN, system = NaN, peakKiB = NaN] = readFileSync(usage, 'utf8').split(' ').map(Number);
    return {
      wallSeconds: wallSeconds / command.repeat,
      cpuSeconds: (user + system) / command.repeat,
      rssMiB: peakKiB / 1024,
      exitCode,
    };
  } finally {
    clearTimeout(timer);
    closeSync(output);
  }
}
