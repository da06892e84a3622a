import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import xterm from '@xterm/headless';
import { HANG } from './hang.ts';

export interface TerminalOptions {
  readonly columns: number;
  readonly rows: number;
  readonly cwd?: string;
  readonly environment?: Readonly<Record<string, string>>;
  /** Called with each chunk of output, before it is on the screen. */
  readonly onOutput?: (bytes: Buffer) => void;
}

/** A shell command in a terminal (a pty, made by `script`), with the screen that a user sees. */
export class TerminalSession implements AsyncDisposable {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #terminal: InstanceType<typeof xterm.Terminal>;
  /** The command's exit code. */
  readonly ended: Promise<number>;

  private constructor(command: string, options: TerminalOptions) {
    const { columns: cols, rows } = options;
    this.#terminal = new xterm.Terminal({ cols, rows, allowProposedApi: true });
    const line = `stty cols ${cols} rows ${rows}; ${command}`;
    this.#child = spawn('script', ['--quiet', '--flush', '--return', '--command', line, '/dev/null'], {
      cwd: options.cwd,
      env: { PATH: process.env['PATH'], HOME: '/nonexistent', TERM: 'xterm', ...options.environment },
    });
    this.#child.stdout.on('data', (bytes: Buffer) => {
      options.onOutput?.(bytes);
      this.#terminal.write(bytes);
    });
    this.#child.stdin.on('error', () => undefined);
    this.ended = new Promise((resolve, reject) => {
      this.#child.once('error', reject);
      this.#child.once('close', (code) => resolve(code ?? 255));
    });
  }

  static start(command: string, options: TerminalOptions): TerminalSession {
    return new TerminalSession(command, options);
  }

  type(text: string): void {
    this.#child.stdin.write(text);
  }

  /** The lines on the screen and those above it, without trailing blanks. */
  async text(): Promise<string> {
    await new Promise<void>((resolve) => this.#terminal.write('', resolve));
    const { active } = this.#terminal.buffer;
    const lines = Array.from({ length: active.length }, (_, y) => active.getLine(y)!.translateToString(true));
    return lines.join('\n').trimEnd();
  }

  /** Waits until the screen satisfies `holds`, but at most `milliseconds`. Returns the screen. */
  async until(holds: (screen: string) => boolean, milliseconds = HANG): Promise<string> {
    const end = performance.now() + milliseconds;
    for (;;) {
      const text = await this.text();
      if (holds(text) || performance.now() > end) return text;
      await sleep(20);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin.end();
    this.#child.kill('SIGHUP');
    await this.ended;
  }
}
