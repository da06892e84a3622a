import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { dir, file, symlink, tar, whiteout } from '../support/archive.ts';
import { missing } from '../support/debian.ts';
import type { FakeImage } from '../support/fake-image.ts';
import { FakeRegistry, type FakeRegistryOptions, type PushedImage } from '../support/fake-registry.ts';
import {
  Scratch,
  startProgram,
  type ProgramOptions,
  type ProgramResult,
  type RunningProgram,
} from '../support/program.ts';
import { printTree } from '../support/tree.ts';

/** The reason why strace cannot inject faults here; false if it can. */
export const noInjection = findNoInjection();

function findNoInjection(): string | false {
  const absent = missing('strace');
  if (absent !== false) return absent;
  const works = spawnSync('strace', ['-qq', '-o', '/dev/null', 'true'], { stdio: 'ignore' }).status === 0;
  return works ? false : 'needs the right to trace programs';
}

/** Random bytes, which no compression reduces. */
export function noise(name: string, bytes: number) {
  return file(name, randomBytes(bytes));
}

const many = () => Array.from({ length: 300 }, (_, n) => file(`usr/share/f${n}`, `${n}\n`));

let three: FakeImage | undefined;

/**
 * Three layers of about 2.3 MiB together, the same ones in each call. They have hidden, replaced and linked
 * files, and enough bytes to be interrupted.
 */
export function threeLayers(): FakeImage {
  three ??= {
    layers: [
      { tar: tar(dir('etc'), file('etc/motd', 'old\n'), file('etc/gone', 'x'), noise('base', 2 ** 20)) },
      { tar: tar(whiteout('etc/gone'), file('etc/motd', 'new\n'), dir('usr/share'), ...many()) },
      { tar: tar(symlink('lib', 'usr/lib'), noise('usr/big', 1.3 * 2 ** 20)) },
    ],
  };
  return three;
}

/** A registry with one image in it, and a directory to pull it to. */
export class Setting implements AsyncDisposable {
  readonly registry: FakeRegistry;
  readonly image: PushedImage;
  readonly scratch = new Scratch();

  private constructor(registry: FakeRegistry, image: PushedImage) {
    this.registry = registry;
    this.image = image;
  }

  static async open(image: FakeImage = threeLayers(), options: FakeRegistryOptions = {}): Promise<Setting> {
    const registry = await FakeRegistry.start(options);
    return new Setting(registry, registry.push('lib/img', '1', image));
  }

  get reference(): string {
    return this.registry.reference('lib/img', '1');
  }

  get store(): string {
    return this.scratch.join('store');
  }

  /**
   * Starts a pull, by default to `out`, with a store beside it. A flag that is given again overrides the
   * first.
   */
  start(
    flags: readonly string[] = [],
    options: ProgramOptions = {},
    reference = this.reference,
  ): RunningProgram {
    const place = flags.includes('-o') ? [] : ['-d', 'out'];
    const argv = [reference, ...place, '--cache-dir', this.store, '--retry-delay', '5ms', ...flags];
    return startProgram(argv, { cwd: this.scratch.path, ...options });
  }

  pull(
    flags: readonly string[] = [],
    options: ProgramOptions = {},
    reference = this.reference,
  ): Promise<ProgramResult> {
    return this.start(flags, options, reference).result;
  }

  /** Runs a pull that must succeed. */
  async pullWell(
    flags: readonly string[] = [],
    options: ProgramOptions = {},
    reference = this.reference,
  ): Promise<ProgramResult> {
    const result = await this.pull(flags, options, reference);
    assert.equal(result.exitCode, 0, result.stderr);
    return result;
  }

  /** Prints the rootfs, for comparisons. */
  tree(name = 'out'): string {
    return printTree(this.scratch.join(name), { root: true, hide: ['time'] });
  }

  /** Names in the parent directory of the rootfs, without the store. */
  get names(): string[] {
    return readdirSync(this.scratch.path)
      .filter((name) => name !== 'store')
      .toSorted();
  }

  /** Size of the partial file of a layer in the store; undefined if it does not exist. */
  partial(layer: number): number | undefined {
    const name = `${this.store}/partial/${this.image.layers[layer]!.digest.replace(':', '-')}`;
    return existsSync(name) ? statSync(name).size : undefined;
  }

  /** Path of a complete blob in the store. */
  blob(digest: string): string {
    return `${this.store}/blobs/${digest.replace(':', '/')}`;
  }

  /** Returns the first byte of each request for a layer's blob. */
  asked(layer: number): number[] {
    const { digest } = this.image.layers[layer]!;
    return this.registry.requests
      .filter(({ method, path }) => method === 'GET' && path.includes(digest))
      .map(({ headers }) => Number(/^bytes=(\d+)-/.exec(headers.range ?? 'bytes=0-')![1]));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.registry.close();
    this.scratch[Symbol.dispose]();
  }
}

/** Asserts that each line of the original is printed once, for an image with these layers. */
export function assertOriginalLines(stdout: string, image: PushedImage): void {
  const ids = image.layers.map(({ digest }) => digest.slice(7, 19));
  const lines = stdout.split('\n');
  const expected = [
    /^Opening a session for .* \.\.\.$/,
    new RegExp(`^Image ID: ${image.configDigest.slice(7)}$`),
    new RegExp(`^Pulling ${ids.length} layers:$`),
    ...ids.map((id) => new RegExp(`^\tPulling fs layer ${id}$`)),
    ...ids.map((id) => new RegExp(`^\tDone ${id}$`)),
    /^Downloading layers:$/,
    ...ids.map((id) => new RegExp(`^\t${id} \\.\\.\\. done$`)),
    /^Rootfs of .* in .*$/,
  ];
  for (const line of expected) {
    assert.equal(lines.filter((each) => line.test(each)).length, 1, `${String(line)} once in:\n${stdout}`);
  }
  assert.equal(lines.filter((line) => line !== '').length, expected.length, stdout);
}
