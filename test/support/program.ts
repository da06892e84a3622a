import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import path from 'node:path';
import { HANG } from './hang.ts';

const root = new URL('../../', import.meta.url).pathname;

/** The program under test: the binary in DLROOTFS_BINARY, as set by `make test`, else the sources. */
export const programCommand: readonly string[] =
  process.env['DLROOTFS_BINARY'] === undefined
    ? [process.execPath, path.join(root, 'test/support/from-sources.ts')]
    : [path.resolve(root, process.env['DLROOTFS_BINARY'])];

export interface ProgramResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ProgramOptions {
  readonly cwd?: string;
  readonly environment?: Readonly<Record<string, string>>;
  readonly stdin?: string | Uint8Array;
  /** The user and group that run it. */
  readonly uid?: number;
  /** A command that runs the program, such as strace with its flags. */
  readonly under?: readonly string[];
  /** The program to run, such as a binary for another architecture; default: programCommand. */
  readonly program?: readonly string[];
  /** A signal, and the milliseconds after which it is sent. */
  readonly signalAfter?: readonly [signal: NodeJS.Signals, milliseconds: number];
  readonly timeoutMilliseconds?: number;
}

/** A directory of one test, which is removed at the end of its scope (`using`). */
export class Scratch implements Disposable {
  readonly path = mkdtempSync(path.join(tmpdir(), 'dlrootfs-test-'));

  join(...parts: readonly string[]): string {
    return path.join(this.path, ...parts);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** A running program. */
export interface RunningProgram {
  readonly pid: number;
  /** Its standard error so far. */
  readonly stderr: string;
  /** Its standard output so far. */
  readonly stdout: string;
  /** Resolves when the program has ended and its outputs are closed. */
  readonly result: Promise<ProgramResult>;
  /** True if the program has ended. */
  readonly isOver: boolean;
  kill(signal: NodeJS.Signals): void;
}

/**
 * Words of Node, such as `EACCES: permission denied, mkdir '/srv/x'`, which no message of the program may
 * have.
 */
const NODE_WORDS = /^.*\bE[A-Z0-9]{2,}: [^\n]*, [a-z]+(?: '.*)?$/m;

const text = (chunks: readonly Buffer[]) => Buffer.concat(chunks).toString('utf8');

/** Starts the program with only this environment (and PATH), so that the user's settings have no effect. */
export function startProgram(argv: readonly string[], options: ProgramOptions = {}): RunningProgram {
  const [command, ...first] = [...(options.under ?? []), ...(options.program ?? programCommand)];
  const child = spawn(command!, [...first, ...argv], {
    cwd: options.cwd ?? tmpdir(),
    env: { PATH: process.env['PATH'], HOME: '/nonexistent', ...options.environment },
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: options.timeoutMilliseconds ?? HANG,
    killSignal: 'SIGKILL',
    ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }),
  });
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.stdin);
  const timer =
    options.signalAfter === undefined
      ? undefined
      : setTimeout(() => child.kill(options.signalAfter![0]), options.signalAfter[1]);
  const result = new Promise<ProgramResult>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      // This is the exit code of a shell: a signal may come before the program handles signals.
      const exitCode = code ?? 128 + constants.signals[signal!];
      const leak = NODE_WORDS.exec(text(stderr))?.[0];
      if (leak !== undefined) reject(new Error(`a message in the words of Node: ${leak}`));
      else resolve({ exitCode, stdout: text(stdout), stderr: text(stderr) });
    });
  });
  return {
    pid: child.pid ?? -1,
    result,
    kill: (signal) => void child.kill(signal),
    get isOver() {
      return child.exitCode !== null || child.signalCode !== null;
    },
    get stdout() {
      return text(stdout);
    },
    get stderr() {
      return text(stderr);
    },
  };
}

/** Runs the program to its end. */
export function runProgram(argv: readonly string[], options: ProgramOptions = {}): Promise<ProgramResult> {
  return startProgram(argv, options).result;
}
