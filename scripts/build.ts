// node scripts/build.ts binary|npm: makes dist/dlrootfs, or dist/npm. See `make build`.
import { buildNpm } from './build/npm.ts';
import { buildSingleExecutable, hostArchitecture } from './build/single-executable.ts';

const [what] = process.argv.slice(2);
if (what === 'binary') await buildSingleExecutable(hostArchitecture(), 'dist/dlrootfs');
else if (what === 'npm') await buildNpm('dist/npm');
else throw new Error(`build.ts makes binary or npm, not ${what}`);
