#!/usr/bin/env node
// This file uses only the syntax of Node 12, so that an old Node prints a message instead of a syntax error.
import { existsSync, readFileSync } from 'node:fs';

// Node would open its debugger, to which every local process can connect. The binary runs with
// --disable-sigusr1.
process.on('SIGUSR1', () => {});

const { engines } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
const leastNodes = engines.node.match(/[\d.]+/g);
const [major, minor, patch] = process.versions.node.split('.').map(Number);
// version.ts has the same check, but is in the bundle.
const isSupported = leastNodes.some((least, index) => {
  const [leastMajor, leastMinor, leastPatch] = least.split('.').map(Number);
  if (major !== leastMajor) return major > leastMajor && index === leastNodes.length - 1;
  return minor === leastMinor ? patch >= leastPatch : minor > leastMinor;
});
if (!isSupported) {
  process.stderr.write(
    `error: dlrootfs needs Node ${leastNodes.join('+, ')}+, and this is ${process.versions.node}\n` +
      'hint: install a newer Node, or use the dlrootfs binary, which brings its own\n',
  );
  process.exitCode = 2;
} else {
  // npm installs the bundle. A checkout that was not built has only the sources, whose types Node strips.
  const bundle = new URL('../dist/npm/cli.js', import.meta.url);
  const { href } = existsSync(bundle) ? bundle : new URL('../src/cli.ts', import.meta.url);
  void import(href).then(({ main }) => main());
}
