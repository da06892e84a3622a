/**
 * Every file that the program reads beside its input may be of any type: a FIFO, a device, a file without
 * end.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, test } from 'node:test';
import { FakeRegistry } from '../support/fake-registry.ts';
import { resultWithPeak } from '../support/peak-memory.ts';
import { runProgram, Scratch, startProgram } from '../support/program.ts';
import { isThorough } from '../support/runs.ts';
import { until } from '../support/until.ts';

type Make = (file: string) => void;

const kinds: Readonly<Record<string, Make>> = {
  'a FIFO that nobody writes to': (file) => execFileSync('mkfifo', [file]),
  'a FIFO whose writer says nothing': (file) => {
    execFileSync('mkfifo', [file]);
    execFileSync('sh', ['-c', 'sleep 20 <> "$1" > /dev/null 2>&1 &', 'sh', file]);
  },
  'a device without end': (file) => symlinkSync('/dev/zero', file),
  'an empty device': (file) => symlinkSync('/dev/null', file),
  'a directory': (file) => mkdirSync(file),
  'a large file': (file) => writeFileSync(file, Buffer.alloc(5 * 1024 * 1024, ' ')),
  'deep JSON': (file) => writeFileSync(file, '['.repeat(1_000_000)),
};

interface Place {
  /** Path in the test's own directory. */
  readonly file: string;
  readonly argv?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  /** True if the user named it: an unusable file is an error of usage then. */
  readonly named?: boolean;
}

const places: Readonly<Record<string, Place>> = {
  '--ca-file': { file: 'x', argv: ['--ca-file', 'x'], named: true },
  '--cert-file': { file: 'x', argv: ['--cert-file', 'x', '--key-file', 'x'], named: true },
  '--cert-dir': { file: 'certs/a.crt', argv: ['--cert-dir', 'certs'], named: true },
  'certs.d': { file: '.config/containers/certs.d/HOST/a.crt', named: true },
  '--authfile': { file: 'x', argv: ['--authfile', 'x'], named: true },
  REGISTRY_AUTH_FILE: { file: 'x', environment: { REGISTRY_AUTH_FILE: 'x' }, named: true },
  'config.json of docker': { file: '.docker/config.json' },
  'auth.json of containers': { file: '.config/containers/auth.json' },
  'registries.conf': { file: '.config/containers/registries.conf' },
  CONTAINERS_REGISTRIES_CONF: { file: 'x', environment: { CONTAINERS_REGISTRIES_CONF: 'x' } },
  'registries.conf.d': { file: '.config/containers/registries.conf.d/a.conf' },
  NODE_EXTRA_CA_CERTS: { file: 'x', environment: { NODE_EXTRA_CA_CERTS: 'x' }, named: true },
};

async function pullWith(where: string, place: Place, what: string, make: Make): Promise<void> {
  await using registry = await FakeRegistry.start({ auth: { type: 'basic', users: { me: 'pass' } } });
  registry.push('team/app', 'latest', { layers: [Buffer.alloc(1024)] });
  using scratch = new Scratch();
  const file = scratch.join(place.file.replace('HOST', registry.host));
  mkdirSync(path.dirname(file), { recursive: true });
  make(file);
  const argv = [registry.reference('team/app'), '-d', 'out', ...(place.argv ?? [])];
  const { exitCode, stdout, stderr } = await runProgram(argv, {
    cwd: scratch.path,
    environment: { HOME: scratch.path, ...place.environment },
  });
  const said = `${where}, ${what}: ${exitCode}\n${stderr}`;
  assert.ok(exitCode === 4 || (place.named === true && exitCode === 2), said);
  assert.match(stderr, /^error: /m, said);
  if (exitCode === 2) assert.match(stderr, /^error: (?:cannot|a certificate or key)/m, said);
  assert.doesNotMatch(stdout + stderr, /^\s+at |this is a bug|Invalid string/m, said);
}

// All runs wait during the same seconds.
describe(
  'configuration that is no plain file ends neither in a hang nor in a bug',
  { concurrency: 4 },
  () => {
    for (const [row, [where, place]] of Object.entries(places).entries()) {
      // Each place has half of the kinds, every other one.
      const met = Object.entries(kinds).filter((_, column) => isThorough || (row + column) % 2 === 0);
      test(where, async () => {
        await Promise.all(met.map(([what, make]) => pullWith(where, place, what, make)));
      });
    }
  },
);

test('configuration from a pipe is read to its end, in parts', async () => {
  await using registry = await FakeRegistry.start({ tls: true });
  registry.push('team/app', 'latest', { layers: [Buffer.alloc(1024)] });
  using scratch = new Scratch();
  writeFileSync(scratch.join('ca.pem'), registry.authority!.cert);
  writeFileSync(
    scratch.join('run'),
    '#!/bin/bash\nexec "$@" --ca-file <(sleep 0.3; head -c 100 ca.pem; sleep 0.3; tail -c +101 ca.pem)\n',
  );
  chmodSync(scratch.join('run'), 0o755);
  const { exitCode, stderr } = await runProgram([registry.reference('team/app'), '-d', 'out'], {
    cwd: scratch.path,
    under: [scratch.join('run')],
  });
  assert.equal(exitCode, 0, stderr);
});

test('a signal ends the wait for a pipe', async () => {
  using scratch = new Scratch();
  execFileSync('mkfifo', [scratch.join('x')]);
  const running = startProgram(['127.0.0.1:1/x', '--ca-file', 'x'], { cwd: scratch.path });
  await until('its first line', () => running.stdout.includes('Opening'));
  running.kill('SIGTERM');
  assert.equal((await running.result).exitCode, 143);
});

test('a credential helper that prints without end, prints nothing, or leaves a child behind', async () => {
  await using registry = await FakeRegistry.start({ auth: { type: 'basic', users: { me: 'pass' } } });
  registry.push('team/app', 'latest', { layers: [Buffer.alloc(1024)] });
  for (const [script, exitCode, says] of [
    ['exec cat /dev/zero', 4, /printed too much/],
    ['exec yes', 4, /printed too much/],
    ['exit 0', 4, /printed no credential/],
    ['kill -9 $$', 4, /did not|failed/],
    ['sleep 1000 & echo \'{"Username":"me","Secret":"pass"}\'', 0, /^$/],
  ] as const) {
    using scratch = new Scratch();
    writeFileSync(scratch.join('config.json'), JSON.stringify({ credsStore: 'test' }));
    writeFileSync(scratch.join('docker-credential-test'), `#!/bin/sh\n${script}\n`);
    chmodSync(scratch.join('docker-credential-test'), 0o755);
    const result = await runProgram([registry.reference('team/app'), '-d', 'out'], {
      cwd: scratch.path,
      environment: { DOCKER_CONFIG: scratch.path, PATH: `${scratch.path}:${process.env['PATH']}` },
    });
    assert.equal(result.exitCode, exitCode, `${script}: ${result.stderr}`);
    assert.match(result.stderr, says);
  }
});

test('a file without end is read to its limit only', async () => {
  using scratch = new Scratch();
  const running = startProgram(['127.0.0.1:1/x', '--ca-file', '/dev/zero'], { cwd: scratch.path });
  const { exitCode, stderr, peak } = await resultWithPeak(running);
  assert.equal(exitCode, 2);
  assert.match(
    stderr,
    /^error: cannot read the certificate authority \/dev\/zero: it is longer than 4194304 bytes$/m,
  );
  assert.ok(peak > 0 && peak < 150_000, `${peak} KiB`);
});
