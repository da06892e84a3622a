import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { withHelp } from '../scripts/readme/help-block.ts';

const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');

test('readme: its help is what --help prints (npm run readme)', () => {
  assert.equal(readme, withHelp(readme));
});

test('readme: every file it links to is there', () => {
  const links = [...readme.matchAll(/\]\((?!https?:)([^)#]+)/g)].map((match) => match[1]!);
  const missing = links.filter((link) => !existsSync(new URL(`../${link}`, import.meta.url)));
  assert.deepEqual(missing, []);
});

test('readme: every runtime package has its line', () => {
  const { dependencies } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
    dependencies: Record<string, string>;
  };
  const missing = Object.keys(dependencies).filter((name) => !readme.includes(`**${name}**`));
  assert.deepEqual(missing, []);
});
