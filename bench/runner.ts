import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { openLink } from './link.ts';
import type { Results } from './results.ts';
import type { Candidate, Row } from './rows.ts';
import { sample, type Sample } from './sample.ts';
import { freshFolder, removeFolder } from './scratch.ts';
import { output } from './setup.ts';
import { compareTrees } from './tree.ts';

export interface RunnerSettings {
  readonly registryPort: number;
  /** A file system that only the benchmark uses. */
  readonly scratch: string;
  /** The output of the candidates goes to this file; only the last run's remains. */
  readonly log: string;
  readonly tool: string;
  readonly craneExport: string | undefined;
  readonly runs: number;
}

const peers = fileURLToPath(new URL('peers.sh', import.meta.url));

/** Files that dlrootfs adds to a tree; umoci does not. */
const ours = new Set(['json', 'layersize']);

/** Runs candidates and collects their samples. */
export class Runner {
  readonly #settings: RunnerSettings;
  readonly #folders;

  constructor(settings: RunnerSettings) {
    this.#settings = settings;
    const at = (name: string) => `${settings.scratch}/${name}`;
    this.#folders = { run: at('run'), cache: at('cache'), blobs: at('blobs'), reference: at('reference') };
  }

  /** Times a row. The candidates take turns, and each round begins with another one. */
  async measure(row: Row): Promise<Results> {
    const candidates = row.candidates.filter((candidate) => this.#isHere(candidate));
    const results = new Map<string, Sample[]>(candidates.map(({ name }) => [name, []]));
    await this.#warm(candidates);
    for (let round = 0; round < this.#settings.runs; round += 1) {
      for (let turn = 0; turn < candidates.length; turn += 1) {
        const candidate = candidates[(round + turn) % candidates.length]!;
        const taken = await this.#run(candidate);
        if (taken.exitCode !== 0)
          process.stderr.write(
            `${candidate.name} exits with ${taken.exitCode}\n${output('tail', ['-n1', this.#settings.log])}\n`,
          );
        results.get(candidate.name)!.push(taken);
        this.#clean(candidate);
      }
    }
    for (const folder of Object.values(this.#folders)) removeFolder(folder);
    return results;
  }

  /** Compares dlrootfs's tree of an image with umoci's; returns one line to print. */
  async verify(image: string): Promise<string> {
    const { run, reference } = this.#folders;
    const candidate = { name: 'umoci', script: 'skopeo_umoci', image };
    const umoci = await this.#run(candidate);
    removeFolder(reference);
    spawnSync('mv', [`${run}/dest`, reference]);
    const dlrootfs = await this.#run({
      name: 'dlrootfs',
      script: 'dlrootfs --no-cache "$IMAGE" -d "$DEST"',
      image,
    });
    const found = compareTrees(reference, `${run}/dest`, ours);
    for (const folder of [run, reference]) removeFolder(folder);
    const verdict =
      found.size === 0
        ? 'the same'
        : [...found].map(([kind, paths]) => `${kind}: ${paths.length}, first ${paths[0]}`).join('; ');
    const exits =
      umoci.exitCode + dlrootfs.exitCode === 0 ? '' : ` (exit ${umoci.exitCode}, ${dlrootfs.exitCode})`;
    return `${image}${exits}: ${verdict}\n`;
  }

  #isHere({ needs = [], cores = 1 }: Candidate): boolean {
    if (cores > availableParallelism()) return false;
    return needs.every((program) =>
      program === 'CRANE_EXPORT'
        ? this.#settings.craneExport !== undefined
        : output('bash', ['-c', `command -v ${program}`]) !== '',
    );
  }

  /** Brings blobs into the page cache, and other data of the row onto the disk, before the clock starts. */
  async #warm(candidates: readonly Candidate[]): Promise<void> {
    const { cache, blobs, run } = this.#folders;
    for (const folder of [cache, blobs]) freshFolder(folder);
    for (const { image, compression = 'gzip' } of candidates) {
      const shared = { name: 'warm', image, compression };
      await this.#run({ ...shared, script: 'transfer' });
      if (candidates.some(({ script }) => script.includes('limit_local')))
        await this.#run({ ...shared, script: 'fetch_blobs "$BLOBS"' });
      if (candidates.some(({ script }) => script.includes('$CACHE')))
        await this.#run({ ...shared, script: 'dlrootfs --cache-dir "$CACHE" "$IMAGE" -d "$DEST"' });
    }
    removeFolder(run);
  }

  async #run(candidate: Candidate): Promise<Sample> {
    const { registryPort, log } = this.#settings;
    const { run } = this.#folders;
    removeFolder(run);
    for (const folder of ['dest', 'scratch']) freshFolder(`${run}/${folder}`);
    await using link = candidate.link && (await openLink(registryPort, candidate.link));
    const tool = `dlrootfs() { ${candidate.tool ?? this.#settings.tool} "$@"; }`;
    return await sample({
      script: `set -o pipefail; . ${peers}; ${tool}; ${candidate.script}`,
      environment: this.#environment(candidate, link?.port ?? registryPort),
      log,
      timeoutSeconds: 600,
      repeat: candidate.repeat ?? 1,
    });
  }

  #environment({ image, compression = 'gzip' }: Candidate, port: number): NodeJS.ProcessEnv {
    const { run, cache, blobs } = this.#folders;
    return {
      PATH: process.env['PATH'],
      HOME: `${run}/scratch`,
      IMAGE: `127.0.0.1:${port}/bench/${image}:${compression}`,
      DEST: `${run}/dest`,
      SCRATCH: `${run}/scratch`,
      CACHE: cache,
      BLOBS: blobs,
      CRANE_EXPORT: this.#settings.craneExport,
      NODE: process.execPath,
    };
  }

  #clean(candidate: Candidate): void {
    const { run } = this.#folders;
    if (candidate.script === 'podman_export')
      spawnSync('bash', ['-c', `. ${peers}; podman_clean`], {
        env: this.#environment(candidate, this.#settings.registryPort),
        stdio: 'ignore',
      });
    if (existsSync(run)) removeFolder(run);
  }
}
