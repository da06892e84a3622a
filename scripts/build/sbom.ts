import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { promisify } from 'node:util';
import { commitTime } from './commit-time.ts';
import { architectures } from './inject.ts';

const run = promisify(execFile);
/** `npm sbom` exists since npm 9.9; Debian 13 has 9.2. A fixed version gives the same text everywhere. */
const NPM = 'npm@11.19.1';
const root = new URL('../..', import.meta.url).pathname;

/** A component of CycloneDX. */
interface Component {
  readonly name: string;
  readonly [field: string]: unknown;
}

interface Bill {
  serialNumber: string;
  metadata: { timestamp: string; component: { name: string; type: string } };
  components: Component[];
}

/**
 * Returns the software bill of materials as CycloneDX JSON: npm's list of the packages in the binary, the
 * native packages of other architectures, which npm does not install here, and Node. The same commit gives
 * the same text.
 */
export async function softwareBillOfMaterials(): Promise<string> {
  const words = ['npm', 'sbom', '--sbom-format', 'cyclonedx', '--omit', 'dev'];
  const { stdout } = await run('npm', ['exec', '--yes', `--package=${NPM}`, '--', ...words], {
    cwd: root,
    maxBuffer: 2 ** 26,
  });
  const bill = JSON.parse(stdout) as Bill;
  bill.metadata.timestamp = new Date(Number(await commitTime()) * 1000).toISOString();
  bill.metadata.component.name = 'dlrootfs';
  bill.metadata.component.type = 'application';
  const native = await nativePackages();
  const listed = new Set(bill.components.map(({ name }) => name));
  bill.components.push(...native.filter(({ name }) => !listed.has(name)), await node());
  bill.serialNumber = '';
  const hex = createHash('sha256').update(JSON.stringify(bill)).digest('hex');
  bill.serialNumber = `urn:uuid:${hex.replace(/^(.{8})(.{4})(.{3})(.{3})(.{12}).*$/, '$1-$2-5$3-8$4-$5')}`;
  return `${JSON.stringify(bill, undefined, 2)}\n`;
}

async function nativePackages(): Promise<Component[]> {
  const text = await readFile(`${root}package-lock.json`, 'utf8');
  const { packages } = JSON.parse(text) as {
    packages: Record<string, { version: string; integrity: string; license: string }>;
  };
  return Object.keys(architectures).map((architecture) => {
    const name = `@koromix/koffi-linux-${architecture}`;
    const { version, integrity, license } = packages[`node_modules/${name}`]!;
    const content = Buffer.from(integrity.replace('sha512-', ''), 'base64').toString('hex');
    return {
      'bom-ref': `${name}@${version}`,
      type: 'library',
      name,
      version,
      scope: 'optional',
      purl: `pkg:npm/${name.replace('@', '%40')}@${version}`,
      hashes: [{ alg: 'SHA-512', content }],
      licenses: [{ license: { id: license } }],
    };
  });
}

async function node(): Promise<Component> {
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
