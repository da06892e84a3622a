import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { PassThrough, Writable } from 'node:stream';
import { test } from 'node:test';
import { promptPassword } from '../../src/command-line/request.ts';
import { file, tar } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { programCommand, runProgram, Scratch } from '../support/program.ts';
import { TerminalSession } from '../support/terminal-session.ts';
import { until } from '../support/until.ts';

const password = 'ge:h\u00e9im';
const layers = [{ tar: tar(file('hello', 'hi\n')) }];
const skip = missing('script', 'stty');

/** The program at its password prompt in a terminal; `exit` appears below when it has ended. */
async function asking(scratch: Scratch, registry: FakeRegistry): Promise<TerminalSession> {
  registry.push('img', 'latest', { layers });
  const command = [...programCommand, `${registry.host}/img`, '-u', 'me', '--no-cache'].join(' ');
  const session = TerminalSession.start(`${command}; echo "exit $?"; stty -a | grep -o -- '-\\?echo '`, {
    columns: 80,
    rows: 30,
    cwd: scratch.path,
  });
  assert.match(await session.until((screen) => screen.includes('Password for me:')), /Password for me:/);
  return session;
}

async function ended(session: TerminalSession): Promise<string> {
  const screen = await session.until((text) => /exit \d+\n-?echo/.test(text));
  assert.match(screen, /^echo$/m, 'the terminal echoes again');
  return screen;
}

const open = async () => FakeRegistry.start({ auth: { type: 'basic', users: { me: password } } });

test(
  'a user name without a password asks for it on the terminal, and shows none of it',
  { skip },
  async () => {
    using scratch = new Scratch();
    await using registry = await open();
    await using session = await asking(scratch, registry);
    session.type('wrong\u00e9\x7f\x7f\x7f\x7f\x7f\x7f\x7f');
    session.type(`${password}\r`);
    const screen = await ended(session);
    assert.match(screen, /^exit 0$/m);
    assert.ok(existsSync(scratch.join('rootfs/hello')));
    assert.doesNotMatch(screen, /ge:|wrong|\*/);
  },
);

const ends: readonly (readonly [name: string, keys: string, exit: number, text: RegExp])[] = [
  ['Ctrl-C', '\x03', 130, /interrupted by SIGINT/],
  ['Ctrl-D', '\x04', 2, /no password was typed/],
];
for (const [name, keys, exit, text] of ends) {
  test(`${name} ends the question`, { skip }, async () => {
    using scratch = new Scratch();
    await using registry = await open();
    await using session = await asking(scratch, registry);
    session.type(`half${keys}`);
    const screen = await ended(session);
    assert.match(screen, new RegExp(`^exit ${exit}$`, 'm'));
    assert.match(screen, text);
    assert.doesNotMatch(screen, /half/);
    assert.equal(existsSync(scratch.join('rootfs')), false);
  });
}

test('the terminal echoes nothing from before the question on until after the answer', async () => {
  let isRaw = false;
  const input = Object.assign(new PassThrough(), {
    setRawMode(raw: boolean): void {
      isRaw = raw;
    },
  });
  const written: [text: string, wasRaw: boolean][] = [];
  const output = new Writable({
    write(chunk: Buffer, _encoding, done): void {
      written.push([chunk.toString(), isRaw]);
      done();
    },
  });
  const answer = promptPassword({ input, output }, 'Password: ', new AbortController().signal);
  input.write('secret\r');
  assert.equal(await answer, 'secret');
  assert.deepEqual(written, [
    ['Password: ', true],
    ['\n', false],
  ]);
});

test('SIGTERM ends the question', { skip }, async () => {
  using scratch = new Scratch();
  await using registry = await open();
  await using session = await asking(scratch, registry);
  execFileSync('pkill', ['--signal', 'TERM', '--full', `${registry.host}/img -u me --no-cache$`]);
  assert.match(await ended(session), /^exit 143$/m);
});

test('SIGTERM ends the waiting for --password-stdin', { timeout: 80_000 }, async () => {
  const [program, ...words] = [...programCommand, '127.0.0.1:9/img', '-u', 'me', '--password-stdin'];
  const child = spawn(program, words, { stdio: ['pipe', 'ignore', 'ignore'] });
  const exit = once(child, 'close');
  // Before the program handles signals, SIGHUP would end it without an exit code. Node catches SIGTERM, but
  // not SIGHUP (bit 0 in proc(5)), whose handler is set last.
  await until('the handler of SIGHUP', () => {
    const [commandLine, status] = ['cmdline', 'status'].map((name) =>
      readFileSync(`/proc/${child.pid}/${name}`, 'utf8'),
    );
    return commandLine!.includes('--password-stdin') && /^SigCgt:.*[13579bdf]$/m.test(status!);
  });
  child.kill('SIGTERM');
  assert.deepEqual(await exit, [143, null]);
});

test('without a terminal it is an error of usage', async () => {
  await using registry = await open();
  const { exitCode, stderr } = await runProgram([`${registry.host}/img`, '-u', 'me']);
  assert.equal(exitCode, 2);
  assert.match(
    stderr,
    /-u has no password, and this is not a terminal to ask for it\nhint: .*--password-stdin/,
  );
});
