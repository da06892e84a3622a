// node scripts/build.ts binary|npm|documents: makes dist/dlrootfs, dist/npm, or the manual page and completions in dist.
import { writeDocuments } from './build/documents.ts';
import { buildNpm } from './build/npm.ts';
import { buildSingleExecutable, hostArchitecture } from './build/single-executable.ts';

const [what] = process.argv.slice(2);
if (what === 'binary') await buildSingleExecutable(hostArchitecture(), 'dist/dlrootfs');
else if (what === 'npm') await buildNpm('dist/npm');
else if (what === 'documents') await writeDocuments('dist');
else throw new Error(`build.ts makes binary, npm or documents, not ${what}`);
