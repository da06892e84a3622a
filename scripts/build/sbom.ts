import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { commitTime } from './commit-time.ts';

const run = promisify(execFile);
const root = new URL('../..', import.meta.url).pathname;

interface Bill {
  serialNumber: string;
  metadata: { timestamp: string; component: { name: string; type: string } };
  components: unknown[];
}

/**
 * Answers the software bill of materials as CycloneDX JSON: npm's own list of the packages in the binary, and Node, which is the base of
 * the binary. The same commit gives the same text.
 */
export async function softwareBillOfMaterials(): Promise<string> {
  const { stdout } = await run('npm', ['sbom', '--sbom-format', 'cyclonedx', '--omit', 'dev'], {
    cwd: root,
    maxBuffer: 2 ** 26,
  });
  const bill = JSON.parse(stdout) as Bill;
  bill.metadata.timestamp = new Date(Number(await commitTime()) * 1000).toISOString();
  bill.metadata.component.name = 'dlrootfs';
  bill.metadata.component.type = 'application';
  bill.components.push(await node());
  bill.serialNumber = '';
  const hex = createHash('sha256').update(JSON.stringify(bill)).digest('hex');
  bill.serialNumber = `urn:uuid:${hex.replace(/^(.{8})(.{4})(.{3})(.{3})(.{12}).*$/, '$1-$2-5$3-8$4-$5')}`;
  return `${JSON.stringify(bill, undefined, 2)}\n`;
}

async function node(): Promise<unknown> {
  const text = await readFile(`${root}tools/node/package.json`, 'utf8');
  const { optionalDependencies } = JSON.parse(text) as { optionalDependencies: Record<string, string> };
  const version = Object.values(optionalDependencies)[0]!;
  return {
    'bom-ref': `node@${version}`,
    type: 'framework',
    name: 'node',
    version,
    scope: 'required',
    description: 'The JavaScript runtime in the binary; its own licence file lists the libraries inside it',
    purl: `pkg:github/nodejs/node@v${version}`,
    licenses: [{ license: { id: 'MIT' } }],
  };
}
