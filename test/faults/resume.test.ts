import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, readdirSync, rmSync, statSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { test } from 'node:test';
import { file, tar } from '../support/archive.ts';
import type { Fault } from '../support/fake-fault.ts';
import { LocalServer } from '../support/local-server.ts';
import { programCommand, type RunningProgram } from '../support/program.ts';
import { until } from '../support/until.ts';
import { noInjection, noise, Setting } from './setting.ts';

const MIB = 2 ** 20;
/** Bytes that may be requested again: manifest, config, headers, and those in flight when a run ended. */
const SLACK = MIB / 2;
/** At this rate a layer is fetched by several connections. */
const slow: Fault = { path: /\/blobs\//, skip: 1, times: 999, rate: 5e6 };

/** A proxy between the program and a registry that counts the registry's bytes. */
class Counter implements AsyncDisposable {
  bytes = 0;
  #server!: LocalServer;

  static async before(registryHost: string): Promise<Counter> {
    const counter = new Counter();
    const port = Number(registryHost.split(':')[1]);
    const connected = (client: Socket) => {
      const registry = connect(port, '127.0.0.1');
      registry.on('data', (chunk) => {
        counter.bytes += chunk.length;
      });
      client.on('error', () => registry.destroy()).on('close', () => registry.destroy());
      registry.on('error', () => client.destroy()).on('close', () => client.destroy());
      client.pipe(registry);
      registry.pipe(client);
    };
    counter.#server = await LocalServer.start(createServer(connected));
    return counter;
  }

  get host(): string {
    return this.#server.host;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server[Symbol.asyncDispose]();
  }
}

interface Ending {
  readonly what: string;
  readonly flags?: readonly string[];
  readonly end: (running: RunningProgram, setting: Setting) => void;
  readonly exitCode: number;
  /** Bytes on disk that may be fetched again. */
  readonly lost: number;
}

const endings: readonly Ending[] = [
  { what: 'SIGTERM', end: (running) => running.kill('SIGTERM'), exitCode: 143, lost: 0 },
  { what: 'SIGKILL', end: (running) => running.kill('SIGKILL'), exitCode: 137, lost: 9 * MIB },
  {
    what: 'a registry that is gone',
    flags: ['--retry', '0'],
    end: (_, { registry }) => {
      registry.requests.length = 0;
      void registry.close();
    },
    exitCode: 5,
    lost: 0,
  },
];

test('no download is reported as kept if none is missing or can be resumed', async () => {
  await using setting = await Setting.open();
  const words = [setting.reference, '--cache-dir', setting.store, '-o', '-'];
  const [program, ...first] = programCommand;
  const stuck = spawn(program!, [...first, ...words], { cwd: setting.scratch.path });
  const errors: string[] = [];
  stuck.stderr.setEncoding('utf8').on('data', (text: string) => errors.push(text));
  const count = (folder: string) => {
    const name = `${setting.store}/${folder}`;
    return existsSync(name) ? readdirSync(name).length : -1;
  };
  // Three layers, manifest and config.
  await until('all blobs', () => count('blobs/sha256') === 5 && count('partial') === 0);
  stuck.kill('SIGTERM');
  assert.deepEqual(await once(stuck, 'close'), [143, null]);
  assert.equal(errors.join(''), 'error: interrupted by SIGTERM\n');

  const { digest } = setting.image.layers[2]!;
  setting.registry.fault({ path: new RegExp(`/blobs/${digest}`), status: 404, times: 99 });
  rmSync(setting.store, { recursive: true });
  const { exitCode, stderr } = await setting.pull();
  assert.equal(exitCode, 3, stderr);
  assert.doesNotMatch(stderr, /^kept:/m);
});

for (const { what, flags = [], end, exitCode, lost } of endings) {
  test(`a pull over several connections that is ended by ${what} is gone on with where it was`, async () => {
    const content = randomBytes(29 * MIB);
    const image = { layers: [{ tar: tar(file('big', content)), compression: 'none' as const }] };
    await using setting = await Setting.open(image, { faults: [slow] });
    const { digest, size } = setting.image.layers[0]!;
    const partial = `${setting.store}/partial/${digest.replace(':', '-')}`;
    const onDisk = () => (existsSync(partial) ? statSync(partial).blocks * 512 : 0);
    const running = setting.start(flags);
    await until('17 MiB', () => onDisk() >= 17 * MIB);
    end(running, setting);
    const first = await running.result;
    assert.equal(first.exitCode, exitCode, first.stderr);
    const kept = onDisk();
    if (what !== 'SIGKILL') assert.match(first.stderr, /\nkept: run it again to resume the download\n$/);

    await using sound = await Setting.open(image, { faults: [slow] });
    await using counter = await Counter.before(sound.registry.host);
    const argv = ['--cache-dir', setting.store, '--json', '--progress', 'json'];
    const reference = sound.reference.replace(sound.registry.host, counter.host);
    const { stdout, stderr } = await sound.pullWell(argv, {}, reference);
    assert.ok(readFileSync(sound.scratch.join('out/big')).equals(content));
    assert.ok(counter.bytes <= size - kept + lost + SLACK, `${counter.bytes} of ${size}, ${kept} on disk`);

    const { bytes } = JSON.parse(stdout) as { readonly bytes: Record<'cache' | 'network', number> };
    assert.equal(bytes.cache + bytes.network, size);
    assert.ok(
      bytes.network <= counter.bytes && bytes.network >= counter.bytes - SLACK,
      JSON.stringify(bytes),
    );
    const events = stderr
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>);
    assert.equal(events.find(({ type }) => type === 'layer-start')!['resumed'], bytes.cache);
    assert.equal(existsSync(partial) || existsSync(`${partial}.ranges`), false);
  });
}

test(
  'while notes of the ranges are slow, at most 8 MiB arrive beyond the last one',
  { skip: noInjection },
  async () => {
    const image = { layers: [{ tar: tar(noise('big', 40 * MIB)), compression: 'none' as const }] };
    await using setting = await Setting.open(image);
    const partial = `${setting.store}/partial/${setting.image.layers[0]!.digest.replace(':', '-')}`;
    const calls = 'rename,renameat,renameat2';
    const delay = ['-e', `trace=${calls}`, '-e', `inject=${calls}:delay_enter=300000`];
    const under = ['strace', '-f', '-qq', '-o', '/dev/null', '--seccomp-bpf', ...delay];
    const running = setting.start([], { under });
    let ended = false;
    void running.result.finally(() => (ended = true));
    let most = 0;
    await until('the end', () => {
      const noted = notedBytes(`${partial}.ranges`);
      const onDisk = existsSync(partial) ? statSync(partial).blocks * 512 : 0;
      most = Math.max(most, onDisk - noted);
      return ended;
    });
    assert.equal((await running.result).exitCode, 0);
    // Two more MiB for the chunks of seven connections, and for what arrives between the two looks.
    assert.ok(most > 2 * MIB && most <= 10 * MIB, `${most} bytes`);
  },
);

/** Returns the number of bytes in the ranges of a note, 0 without one. */
function notedBytes(note: string): number {
  if (!existsSync(note)) return 0;
  const lines = readFileSync(note, 'latin1').split('\n').slice(1);
  return lines
    .map((line) => line.split('-').map(Number) as [number, number])
    .reduce((sum, [start, end]) => sum + end - start, 0);
}

test('no kept download is reported if none is kept', async () => {
  const image = { layers: [{ tar: tar(noise('big', 4 * MIB)) }] };
  const cases: readonly (readonly [flags: readonly string[], faults: readonly Fault[]])[] = [
    [['--no-cache'], [{ path: /\/blobs\//, skip: 1, times: 99, cutAfter: 2 * MIB }]],
    [[], [{ path: /\/blobs\//, skip: 1, times: 99, status: 500 }]],
    [[], [{ path: /\/manifests\//, times: 99, status: 500 }]],
    // The image is corrupt, so a resumed download would fail too.
    [[], [{ path: /\/blobs\//, skip: 1, times: 99, corruptAt: 9 }]],
  ];
  for (const [flags, faults] of cases) {
    await using setting = await Setting.open(image, { ranges: false, faults });
    const { exitCode, stderr } = await setting.pull(['--retry', '0', ...flags]);
    assert.notEqual(exitCode, 0);
    assert.doesNotMatch(stderr, /kept/);
  }
});
