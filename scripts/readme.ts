import { readFileSync, writeFileSync } from 'node:fs';
import { withHelp } from './readme/help-block.ts';

// `npm run readme`: copies the output of `dlrootfs --help` into the README.
const readme = new URL('../README.md', import.meta.url);
writeFileSync(readme, withHelp(readFileSync(readme, 'utf8')));
