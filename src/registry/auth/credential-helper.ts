import { spawn } from 'node:child_process';
import { printable } from '../../errors.ts';
import { isObject } from '../../oci/json.ts';
import type { Credential } from './credential.ts';
import type { RegistryOptions } from '../registry-options.ts';

/** Milliseconds: a helper may ask its user to unlock something. */
const HELPER_TIMEOUT = 30_000;
const MAX_OUTPUT = 65_536;
/** Milliseconds between a helper's exit and the end of what it printed. */
const LINGER = 500;

/** Why a helper gave no answer; its message is fit for a terminal and holds nothing the helper was told or said in secret. */
export class HelperError extends Error {}

interface Outcome {
  readonly code: number | null;
  readonly output: string;
}

function run(
  program: string,
  key: string,
  environment: RegistryOptions['environment'],
  timeout: number,
  signal: AbortSignal,
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, ['get'], {
      stdio: ['pipe', 'pipe', 'ignore'],
      env: environment,
      killSignal: 'SIGKILL',
      signal,
    });
    // Node's own `timeout` keeps the process alive where the program is missing.
    setTimeout(() => child.kill('SIGKILL'), timeout).unref();
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      if (output.length > MAX_OUTPUT) child.kill('SIGKILL');
    });
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, output }));
    // What a helper leaves behind in the background may hold its output open.
    child.once('exit', (code) =>
      setTimeout(() => child.stdout.destroy(), code === null ? 0 : LINGER).unref(),
    );
    // A helper that does not read is no fault.
    child.stdin.on('error', () => undefined).end(key);
  });
}

function missing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'EACCES');
}

/**
 * Asks `docker-credential-NAME get` (docker-credential-helpers' protocol: the key on stdin, JSON on stdout) for the credential of
 * `key`. Undefined when the helper has none. Throws HelperError.
 */
export async function askHelper(
  name: string,
  key: string,
  environment: RegistryOptions['environment'],
  signal: AbortSignal,
  timeout = HELPER_TIMEOUT,
): Promise<Credential | undefined> {
  const program = `docker-credential-${name}`;
  if (!/^[\w.-]+$/.test(name))
    throw new HelperError(`"${printable(name, 60)}" is no name of a credential helper`);
  const outcome = await run(program, key, environment, timeout, signal).catch((error: unknown) => {
    signal.throwIfAborted();
    if (missing(error)) throw new HelperError(`the program ${program} is not in PATH`, { cause: error });
    throw new HelperError(`${program} did not run: ${printable(String(error), 160)}`, { cause: error });
  });
  signal.throwIfAborted();
  if (outcome.code === null) {
    const why =
      outcome.output.length > MAX_OUTPUT ? 'printed too much' : `did not answer in ${timeout / 1000} s`;
    throw new HelperError(`${program} ${why}`);
  }
  if (outcome.code === 0) return parseAnswer(outcome.output, program);
  // An error's text is on stdout; this one is agreed upon.
  if (outcome.output.trim() === 'credentials not found in native keychain') return undefined;
  throw new HelperError(
    `${program} failed: ${printable(outcome.output.trim(), 200) || `exit code ${outcome.code}`}`,
  );
}

function parseAnswer(output: string, program: string): Credential | undefined {
  let answer: unknown;
  try {
    answer = JSON.parse(output);
  } catch {
    answer = undefined;
  }
  if (!isObject(answer) || typeof answer['Secret'] !== 'string' || typeof answer['Username'] !== 'string') {
    throw new HelperError(`what ${program} answered is no credential`);
  }
  const { Username: username, Secret: secret } = answer;
  if (secret === '') return undefined;
  if (username === '<token>') return { kind: 'identity-token', token: secret, source: program };
  return { kind: 'password', username, password: secret, source: program };
}
