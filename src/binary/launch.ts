import { isMainThread } from 'node:worker_threads';
import { requireScript } from './script.ts';

// The first script of the single executable, and of each thread that it starts.
if (isMainThread) void (requireScript('cli.js') as typeof import('../cli.ts')).main();
else requireScript('thread.js');
