import { requireScript } from './script.ts';

// The first script of the single executable.
void (requireScript('cli.js') as typeof import('../cli.ts')).main();
