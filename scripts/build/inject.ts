import { execFile } from 'node:child_process';
import { copyFile, mkdir, open, rename, rm, writeFile } from 'node:fs/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Architectures by their names in Node and npm, with those of `uname -m` and of Debian's cross tools. */
export const architectures = {
  x64: { machine: 'x86_64', debian: 'amd64', strip: ['strip', 'x86_64-linux-gnu-strip'] },
  arm64: { machine: 'aarch64', debian: 'arm64', strip: ['strip', 'aarch64-linux-gnu-strip'] },
} as const;

export type Architecture = keyof typeof architectures;

export interface ExecutableOptions {
  readonly architecture: Architecture;
  /** Node of that architecture, to build on. */
  readonly node: string;
  /** koffi's library for that architecture, linked against glibc. */
  readonly koffi: string;
  /** Flags of Node and V8 that the program always runs with. */
  readonly flags: readonly string[];
  /** Scripts and code caches by name; `launch.js` among them. */
  readonly assets: ReadonlyMap<string, string | Uint8Array>;
  /** Scratch folder. */
  readonly scratch: string;
  readonly output: string;
}

/** The marker in Node's binary that postject changes. */
const fuse = 'NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2';

/** Makes the single executable: a stripped copy of Node with the scripts and koffi's library inside. */
export async function makeExecutable(options: ExecutableOptions): Promise<void> {
  const { scratch } = options;
  await mkdir(scratch, { recursive: true });
  const assets: Record<string, string> = { 'koffi.node': options.koffi };
  for (const [name, content] of options.assets) {
    assets[name] = `${scratch}/${name}`;
    await writeFile(`${scratch}/${name}`, content);
  }
  const configuration = {
    main: `${scratch}/launch.js`,
    output: `${scratch}/blob`,
    assets,
    disableExperimentalSEAWarning: true,
    useCodeCache: false,
    execArgv: options.flags,
    execArgvExtension: 'none',
  };
  await writeFile(`${scratch}/sea.json`, JSON.stringify(configuration));
  await run(process.execPath, ['--experimental-sea-config', `${scratch}/sea.json`]);

  const binary = `${scratch}/dlrootfs`;
  await copyFile(options.node, binary);
  await strip(binary, options.architecture);
  await run('postject', [binary, 'NODE_SEA_BLOB', `${scratch}/blob`, '--sentinel-fuse', fuse]);
  await publish(binary, options.output);
  await rm(scratch, { recursive: true });
}

/**
 * Strips the symbols of the base: about 18 MB of 126. This must precede the injection, since strip breaks the
 * injected headers. Without a strip for the architecture the binary is only larger.
 */
async function strip(binary: string, architecture: Architecture): Promise<void> {
  for (const program of architectures[architecture].strip) {
    try {
      await run(program, [binary]);
      return;
    } catch {
      // The program is not installed, or strips only another architecture.
    }
  }
  const names = architectures[architecture].strip.join(', ');
  process.stderr.write(
    `none of ${names} works for ${architecture}: the binary keeps its symbols, and is 18 MB larger (apt install ${architecture === 'x64' ? 'binutils' : 'binutils-aarch64-linux-gnu'})\n`,
  );
}

/**
 * Copies to the final name in pieces of 64 KiB, then renames. Linux keeps a large write as one large folio of
 * the page cache, and maps the whole folio when a program touches one page: written in large pieces, the same
 * executable takes 12 to 24 MiB more resident memory.
 */
async function publish(from: string, to: string): Promise<void> {
  const partial = `${to}.partial`;
  const source = await open(from);
  const target = await open(partial, 'w', 0o755);
  try {
    const piece = Buffer.allocUnsafe(64 * 1024);
    for (;;) {
      const { bytesRead } = await source.read(piece, 0, piece.length);
      if (bytesRead === 0) break;
      await target.writeFile(piece.subarray(0, bytesRead));
    }
  } finally {
    await source.close();
    await target.close();
  }
  await rename(partial, to);
}
