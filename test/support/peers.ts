import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { promisify } from 'node:util';
import type { Scratch } from './program.ts';

const run = promisify(execFile);

/** Runs another program; returns its error, or undefined if it succeeds. */
async function refusal(
  program: string,
  argv: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<string | undefined> {
  try {
    await run(program, argv, { env: { PATH: process.env['PATH'], ...env }, timeout: 60_000 });
    return undefined;
  } catch (error) {
    const { stderr = '', message } = error as { readonly stderr?: string; readonly message: string };
    return stderr.trim() === '' ? message : stderr.trim();
  }
}

/** Debian's cosign with new keys. */
export class Cosign {
  readonly #environment: Readonly<Record<string, string>>;
  readonly #scratch: Scratch;

  constructor(scratch: Scratch) {
    this.#scratch = scratch;
    this.#environment = { HOME: scratch.path, COSIGN_PASSWORD: '' };
  }

  async run(argv: readonly string[], environment: Readonly<Record<string, string>> = {}): Promise<void> {
    await run('cosign', argv, {
      cwd: this.#scratch.path,
      env: { PATH: process.env['PATH'], ...this.#environment, ...environment },
      timeout: 60_000,
    });
  }

  /** Makes cosign.key and cosign.pub; returns the path of the latter. */
  async generateKeys(): Promise<string> {
    await this.run(['generate-key-pair']);
    return this.#scratch.join('cosign.pub');
  }

  /** Signs without a log; `mode` selects where the signature is stored. */
  async sign(reference: string, mode: 'legacy' | 'oci-1-1' = 'legacy'): Promise<void> {
    const key = ['--key', this.#scratch.join('cosign.key')];
    const argv = ['sign', ...key, '--tlog-upload=false', '-y', '--registry-referrers-mode', mode, reference];
    await this.run(argv, { COSIGN_EXPERIMENTAL: '1' });
  }

  /** Verifies a signature; undefined if cosign accepts it. */
  verify(reference: string, flags: readonly string[]): Promise<string | undefined> {
    return refusal('cosign', ['verify', ...flags, reference], this.#environment);
  }

  /** Verifies a bundle as a signature of the manifest in a file; undefined if cosign accepts it. */
  verifyBundle(manifest: string, bundle: string, flags: readonly string[]): Promise<string | undefined> {
    const type = ['--type', 'https://sigstore.dev/cosign/sign/v1'];
    const argv = ['verify-blob-attestation', '--new-bundle-format', '--bundle', bundle, ...type, ...flags];
    return refusal('cosign', [...argv, manifest], this.#environment);
  }
}

/** Debian's skopeo with a policy for all images of registries. */
export class Skopeo {
  readonly #scratch: Scratch;
  readonly #policy: string;
  readonly #registries: string;

  /**
   * @param policy the file of the policy
   * @param registries its registries.d; by default attachments are on for every registry
   */
  constructor(scratch: Scratch, policy: string, registries?: string) {
    this.#scratch = scratch;
    this.#policy = policy;
    this.#registries = registries ?? scratch.join('registries.d');
    if (registries !== undefined) return;
    mkdirSync(this.#registries, { recursive: true });
    writeFileSync(`${this.#registries}/all.yaml`, 'default-docker:\n  use-sigstore-attachments: true\n');
  }

  async run(argv: readonly string[], environment: Readonly<Record<string, string>> = {}): Promise<void> {
    await run('skopeo', ['--registries.d', this.#registries, ...argv], {
      cwd: this.#scratch.path,
      env: { PATH: process.env['PATH'], HOME: this.#scratch.path, ...environment },
      timeout: 60_000,
    });
  }

  /** Copies an image of a registry; undefined if the policy allows it. */
  pull(reference: string, policy?: string): Promise<string | undefined> {
    return this.copies(`docker://${reference}`, policy);
  }

  /** Copies an image of any transport; undefined if the policy allows it. */
  copies(image: string, policy = this.#policy): Promise<string | undefined> {
    const target = this.#scratch.join(`skopeo-${Math.random().toString(36).slice(2)}`);
    const flags = ['--registries.d', this.#registries, '--policy', policy];
    const copy = ['copy', '--src-tls-verify=false', '--remove-signatures', image, `dir:${target}`];
    return refusal('skopeo', [...flags, ...copy], { HOME: this.#scratch.path });
  }
}
