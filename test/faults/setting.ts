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

/** Why strace cannot inject faults here; false where it can. */
export const noInjection = findNoInjection();

function findNoInjection(): string | false {
  const absent = missing('strace');
  if (absent !== false) return absent;
  const works = spawnSync('strace', ['-qq', '-o', '/dev/null', 'true'], { stdio: 'ignore' }).status === 0;
  return works ? false : 'needs the right to trace programs';
}

/** Bytes that no compression makes fewer. */
export function noise(name: string, bytes: number) {
  return file(name, randomBytes(bytes));
}

const many = () => Array.from({ length: 300 }, (_, n) => file(`usr/share/f${n}`, `${n}\n`));

let three: FakeImage | undefined;

/**
 * Three layers of about 2.3 MiB together, the same ones in each call, with hidden, replaced and linked files,
 * and enough bytes to be interrupted.
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
   * Starts a pull, to `out` where the flags name no place, with a store beside it. The last of two flags
   * counts.
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

  /** A pull that must go well. */
  async pullWell(
    flags: readonly string[] = [],
    options: ProgramOptions = {},
    reference = this.reference,
  ): Promise<ProgramResult> {
    const result = await this.pull(flags, options, reference);
    assert.equal(result.exitCode, 0, result.stderr);
    return result;
  }

  /** The rootfs as text, to be compared. */
  tree(name = 'out'): string {
    return printTree(this.scratch.join(name), { root: true, hide: ['time'] });
  }

  /** Names in the directory that the rootfs is pulled into, the store aside. */
  get names(): string[] {
    return readdirSync(this.scratch.path)
      .filter((name) => name !== 'store')
      .toSorted();
  }

  /**
   * How many bytes of a layer wait in the store for a run that goes on; undefined when there is no such file.
   */
  partial(layer: number): number | undefined {
    const name = `${this.store}/partial/${this.image.layers[layer]!.digest.replace(':', '-')}`;
    return existsSync(name) ? statSync(name).size : undefined;
  }

  /** Where the store has a whole blob. */
  blob(digest: string): string {
    return `${this.store}/blobs/${digest.replace(':', '/')}`;
  }

  /** The requests for a layer's blob: for each, the first byte that was asked for. */
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

/** Holds where the original's lines stand once each, for an image of so many layers. */
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
