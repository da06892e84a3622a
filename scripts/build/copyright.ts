import { readdir, readFile } from 'node:fs/promises';
import { bundleForExecutable } from './bundle.ts';

const root = new URL('../..', import.meta.url).pathname;

/** Packages in the executable that esbuild does not bundle: koffi's library. */
const alsoInside = ['koffi'];

const rule = `\n${'-'.repeat(80)}\n\n`;

/**
 * Returns the licences of all parts of the single executable: ours, those of npm packages, and Node's with
 * its parts.
 */
export async function copyrightText(): Promise<string> {
  const { inputs } = await bundleForExecutable();
  const bundled = inputs.flatMap((path) => /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1] ?? []);
  const names = [...new Set([...bundled, ...alsoInside])].toSorted();
  const node = `${root}tools/node/node_modules`;
  const nodePackage = (await readdir(node)).find((name) => name.startsWith('node-linux-'));
  if (nodePackage === undefined) throw new Error(`no Node in ${node}: npm run prepare`);
  return [
    `dlrootfs\n\n${await readFile(`${root}LICENSE`, 'utf8')}`,
    `The program dlrootfs is one file made of the above and of the following works,\nunder the licences that stand with each.\n`,
    ...(await Promise.all(names.map(packageLicence))),
    `Node.js\n\n${await readFile(`${node}/${nodePackage}/LICENSE`, 'utf8')}`,
  ].join(rule);
}

async function packageLicence(name: string): Promise<string> {
  const folder = `${root}node_modules/${name}`;
  const { version, license, author } = JSON.parse(await readFile(`${folder}/package.json`, 'utf8')) as {
    readonly version: string;
    readonly license?: string;
    readonly author?: string | { readonly name?: string };
  };
  const files = (await readdir(folder)).filter((file) => /^(?:licen[cs]e|copying)/i.test(file)).toSorted();
  const texts = await Promise.all(files.map((file) => readFile(`${folder}/${file}`, 'utf8')));
  const by = typeof author === 'string' ? author : author?.name;
  if (license === undefined && texts.length === 0) throw new Error(`${name} says nothing of its licence`);
  const without = `Licence: ${license}, as its package.json says; by ${by ?? 'its authors'}.\n`;
  return `${name} ${version}\n\n${texts.length > 0 ? texts.join('\n') : without}`;
}
