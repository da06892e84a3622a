// Links the Node of tools/node to node_modules/.bin/node, which is first on the PATH of every `npm run`. It
// runs on the Node that started npm, so it must support Node 20.
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
