import { execFileSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import type { Plugin } from 'esbuild';

const standIns: Readonly<Record<string, string>> = {
  'node:http':
    'exports.maxHeaderSize = 16384; exports.IncomingMessage = class {}; exports.STATUS_CODES = {};',
  'node:assert': `module.exports = (value, message) => {
    if (value) return;
    if (message instanceof Error) throw message;
    throw Object.assign(new Error(message ?? 'an assertion of undici failed'), { code: 'ERR_ASSERTION' });
  }`,
};

/**
 * Removes work of undici that this program does not need, more than half of the start of a pull.
 *
 * All connections are HTTP/1.1 (`allowH2: false`), but undici loads node:http2, and with it node:tls, which
 * parses all of Node's root certificates. undici needs only a number and a class of node:http, and a function
 * of node:assert.
 *
 * Its HTTP parser is WebAssembly. V8 optimises one large function of it after the headers of a few responses:
 * 120 ms of processor time and 40 MB of memory. The baseline code is as fast as any network, so the budget
 * that triggers the optimisation is raised while the module is compiled. A flag of the process would make V8
 * reject the code caches of Node's own modules.
 */
export const leanUndici: Plugin = {
  name: 'lean-undici',
  setup(bundle) {
    bundle.onLoad({ filter: /\/undici\/lib\/dispatcher\/client-h2\.js$/ }, () => ({
      contents: "module.exports = () => { throw new Error('HTTP/2 is off') }",
    }));
    bundle.onResolve({ filter: /^node:(http|assert)$/ }, ({ path, importer }) =>
      importer.includes('/node_modules/undici/') ? { path, namespace: 'lean-undici' } : undefined,
    );
    bundle.onLoad({ filter: /./, namespace: 'lean-undici' }, ({ path }) => ({
      contents: standIns[path] ?? '',
    }));
    bundle.onLoad({ filter: /\/undici\/lib\/dispatcher\/client-h1\.js$/ }, async ({ path }) => {
      const source = await readFile(path, 'utf8');
      const contents = source.replaceAll('new WebAssembly.Module(', 'baselineModule(');
      if (contents === source) throw new Error(`${path} makes no WebAssembly module`);
      return { contents: contents + baselineModule(tieringBudget()) };
    });
  },
};

function baselineModule(budget: string): string {
  return `
function baselineModule(bytes) {
  const { setFlagsFromString } = require('node:v8');
  setFlagsFromString('--wasm-tiering-budget=2000000000');
  try {
    return new WebAssembly.Module(bytes);
  } finally {
    setFlagsFromString('--wasm-tiering-budget=${budget}');
  }
}`;
}

/** V8's default. The flag must return to exactly this value: it is part of every code cache. */
function tieringBudget(): string {
  const options = execFileSync(process.execPath, ['--v8-options'], { encoding: 'utf8' });
  const budget = /default: --wasm-tiering-budget=(\d+)/.exec(options)?.[1];
  if (budget === undefined) throw new Error('V8 has no --wasm-tiering-budget any more');
  return budget;
}
