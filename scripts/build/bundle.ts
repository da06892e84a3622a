import { readFile } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { leanUndici } from './lean-undici.ts';
import { build, transform, type BuildOptions, type Plugin } from 'esbuild';

const root = new URL('../..', import.meta.url).pathname;

const shared = {
  absWorkingDir: root,
  bundle: true,
  platform: 'node',
  format: 'esm',
  entryNames: '[name]',
  chunkNames: '[name]-[hash]',
  legalComments: 'none',
  logLevel: 'warning',
} satisfies BuildOptions;

const threads = ['src/rootfs/thread.ts', 'src/git/packer-thread.ts', 'src/commands/decoder-thread.ts'];

/** Replaces the names of the threads' files: in the bundle they are JavaScript, in one directory. */
const threadBesideBundle: Plugin = {
  name: 'thread-beside-bundle',
  setup(bundle) {
    bundle.onLoad({ filter: /\/src\/sys\/threads\.ts$/ }, async ({ path }) => {
      const source = await readFile(path, 'utf8');
      const contents = source.replaceAll(
        /'\.\.\/(?:rootfs|git|commands)\/(thread|packer-thread|decoder-thread)\.ts'/g,
        "'./$1.js'",
      );
      for (const thread of ['thread', 'packer-thread', 'decoder-thread']) {
        if (!contents.includes(`'./${thread}.js'`))
          throw new Error(`src/sys/threads.ts does not start ${thread}.ts`);
      }
      return { contents, loader: 'ts' };
    });
  },
};

/**
 * The library's entry loads its errors before it checks the version of Node: an old Node must be able to
 * parse them.
 */
const errorsApart: Plugin = {
  name: 'errors-apart',
  setup(bundle) {
    bundle.onResolve({ filter: /\/errors\.ts$/ }, ({ kind }) =>
      kind === 'entry-point' ? undefined : { path: './errors.js', external: true },
    );
  },
};

/** The files of the npm package: command, library and threads; npm installs the packages that they import. */
export async function bundleForNpm(directory: string): Promise<void> {
  await Promise.all([
    build({ ...shared, entryPoints: ['src/errors.ts'], outdir: directory, target: 'node12.22' }),
    build({
      ...shared,
      entryPoints: ['src/cli.ts', 'src/index.ts', ...threads],
      splitting: true,
      outdir: directory,
      target: 'node22.22',
      packages: 'external',
      plugins: [threadBesideBundle, errorsApart],
    }),
  ]);
}

/** The single executable replaces two modules, since it has no files to load from. */
const insideExecutable: Plugin = {
  name: 'inside-executable',
  setup(bundle) {
    bundle.onLoad({ filter: /\/src\/sys\/koffi\.ts$/ }, ({ path }) => {
      return { contents: "export * from '../binary/koffi.ts';", resolveDir: dirname(path), loader: 'ts' };
    });
    // This is a separate script, since launch.js has started the thread before cli.js requires it.
    bundle.onResolve({ filter: /\/threads\.ts$/ }, ({ importer }) =>
      importer === '' || importer.includes('/src/binary/')
        ? undefined
        : { path: './threads.js', external: true },
    );
  },
};

const embedded = {
  ...shared,
  target: 'node24',
  outdir: 'dist',
  charset: 'ascii',
  minifySyntax: true,
  minifyWhitespace: true,
  metafile: true,
  write: false,
  plugins: [insideExecutable, leanUndici],
} satisfies BuildOptions;

/**
 * The scripts of the single executable by file name, each CommonJS in pure ASCII: `launch.js` and
 * `launch-thread.js` run first; `cli.js` loads others on demand; each thread is one script, so that its inner
 * loops call each other directly. Also the paths of all bundled files, for the licences.
 */
export async function bundleForExecutable(): Promise<{ scripts: Map<string, string>; inputs: string[] }> {
  const results = await Promise.all([
    build({ ...embedded, entryPoints: ['src/cli.ts'], splitting: true }),
    build({ ...embedded, entryPoints: threads, format: 'cjs' }),
    build({
      ...embedded,
      entryPoints: ['src/binary/launch.ts', 'src/binary/launch-thread.ts', 'src/binary/threads.ts'],
    }),
  ]);
  const scripts = new Map<string, string>();
  for (const file of results.flatMap((result) => result.outputFiles)) {
    scripts.set(basename(file.path), await asCommonJS(file.text));
  }
  return { scripts, inputs: results.flatMap((result) => Object.keys(result.metafile.inputs)) };
}

/**
 * Converts ES modules, the only format that esbuild splits, to CommonJS. `import()` becomes a `require` on
 * demand.
 */
async function asCommonJS(source: string): Promise<string> {
  const result = await transform(source, {
    format: 'cjs',
    platform: 'node',
    target: 'node24',
    supported: { 'dynamic-import': false },
    charset: 'ascii',
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: 'none',
  });
  return result.code;
}
