// `node scripts/build.ts binary|aarch64|npm|documents` builds dist/dlrootfs, dist/dlrootfs-aarch64, dist/npm
// with dist/package, or the documents in dist: manual page, completions, licences.
import { writeDocuments } from './build/documents.ts';
import { buildNpm, writeNpmPackage } from './build/npm.ts';
import { buildSingleExecutable, hostArchitecture } from './build/single-executable.ts';

const [what] = process.argv.slice(2);
if (what === 'binary') await buildSingleExecutable(hostArchitecture(), 'dist/dlrootfs');
else if (what === 'npm') {
  await buildNpm('dist/npm');
  await writeNpmPackage('dist/package');
} else if (what === 'aarch64') await buildSingleExecutable('arm64', 'dist/dlrootfs-aarch64');
else if (what === 'documents') await writeDocuments('dist');
else throw new Error(`build.ts builds binary, aarch64, npm or documents, not ${what}`);
