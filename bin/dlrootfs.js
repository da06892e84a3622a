#!/usr/bin/env node
import { existsSync } from 'node:fs';

// As installed by npm: the bundle. In a checkout that was not built: the sources, whose types Node strips.
const bundle = new URL('../dist/npm/cli.js', import.meta.url);
const { main } = await import(
  existsSync(bundle) ? bundle.href : new URL('../src/cli.ts', import.meta.url).href
);
await main();
