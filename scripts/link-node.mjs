// Puts the Node of tools/node first on the PATH of every `npm run`: node_modules/.bin/node.
// Runs on the Node that started npm, so it must work on Node 20.
import { existsSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const binary = `tools/node/node_modules/node-${process.platform}-${process.arch}/bin/node`;
const link = `${root}/node_modules/.bin/node`;
if (existsSync(`${root}/${binary}`)) {
  mkdirSync(`${root}/node_modules/.bin`, { recursive: true });
  rmSync(link, { force: true });
  symlinkSync(`../../${binary}`, link);
}
