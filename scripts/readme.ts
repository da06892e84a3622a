import { readFileSync, writeFileSync } from 'node:fs';
import { withHelp } from './readme/help-block.ts';

// `npm run readme`: puts what `dlrootfs --help` prints into the README.
const readme = new URL('../README.md', import.meta.url);
writeFileSync(readme, withHelp(readFileSync(readme, 'utf8')));
