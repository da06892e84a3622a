import { requireScript } from './script.ts';

// The first script of the writing thread in the single executable.
requireScript('thread.js');
