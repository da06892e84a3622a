// `node scripts/words.ts`, a part of `npm run lint`, lists words and style in sources and documents that the
// project avoids, each with a better one. In test/ and bench/ it checks the style only.
import { readFileSync, readdirSync } from 'node:fs';

interface Rule {
  readonly pattern: RegExp;
  readonly better: string;
}

const WORDS: readonly Rule[] = [
  { pattern: /\bwho(?:m|ever|soever)\b/gi, better: 'name the subject' },
  { pattern: /\bwhat(?:ever|soever)\b|\bwhichever\b/gi, better: 'any …, every …' },
  { pattern: /\bstands? (?:for|in)\b/gi, better: 'means, replaces, is in' },
  { pattern: /\b(?:is|are|was|were) asked of\b/gi, better: 'is requested from' },
  { pattern: /\bcom(?:e|es|ing) of it\b|\bcame of it\b/gi, better: 'the result' },
  { pattern: /\blame\b/gi, better: 'name the fault' },
  { pattern: /\bblame[sd]?\b/gi, better: 'explain' },
  { pattern: /\banew\b/gi, better: 'again' },
  { pattern: /\b(?:there|here|where)(?:in|of|upon|by|with)\b/gi, better: 'in it, of it' },
  { pattern: /\btell who made\b/gi, better: 'report it to its publisher' },
  { pattern: /\b(?:goes|go|going|went|gone) on with\b/gi, better: 'continues, resumes' },
  { pattern: /\bthere is no\b/gi, better: 'X does not exist, X has no Y' },
  {
    pattern: /\ba (?:line|layer|branch|record|entry|second|connection|thread|run|byte) a\b/gi,
    better: 'per',
  },
  {
    pattern:
      /\b(?:line|branch|commit|record|byte|entry|call|bit|bits) an? (?:layer|entry|line|connection|file|second|run|character)\b/gi,
    better: 'per',
  },
  { pattern: /\bheirs?\b/gi, better: 'successor' },
  { pattern: /\b(?:is|are|to be) had\b/gi, better: 'is available' },
  { pattern: /\bin the place of\b/gi, better: 'instead of' },
  { pattern: /\bmay pass\b/gi, better: 'transient' },
  { pattern: /\btells? of\b|\btold of\b/gi, better: 'reports' },
  { pattern: /\bheld against\b/gi, better: 'compared with, verified by' },
  { pattern: /\bletters? go of\b|\blets go of\b/gi, better: 'releases' },
  {
    pattern: /\b(?:Appetite|Persistence|Breath|Manners|Surroundings|makeWay|furnish\w*)\b/g,
    better: 'the agreed names',
  },
];

/** Rules of style that the linter does not have. */
const STYLE: readonly Rule[] = [
  { pattern: /^\s*(?:\/\*\*|\*).*\bThrows\b/gm, better: 'a line `@throws …` of the doc comment' },
  {
    pattern: /^(?:export )?const [a-z]\w* = -?[0-9][0-9_.* x]*;/gm,
    better: 'UPPER_SNAKE for a constant number, with its unit in the name or doc',
  },
];

const root = new URL('../', import.meta.url);

function files(directory: string): string[] {
  return readdirSync(new URL(directory, root), { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.(?:ts|js|mjs|sh|md|txt)$/.test(name))
    .map((name) => `${directory}${name}`);
}

function violations(file: string, rules: readonly Rule[]): string[] {
  const text = readFileSync(new URL(file, root), 'utf8');
  return rules.flatMap(({ pattern, better }) =>
    [...text.matchAll(pattern)].map((match) => {
      const line = text.slice(0, match.index).split('\n').length;
      return `${file}:${line}: "${match[0].replaceAll(/\s+/g, ' ')}": ${better}`;
    }),
  );
}

const worded = [...['src/', 'bin/', 'scripts/', 'docs/'].flatMap(files), 'README.md', 'Makefile'];
const found = [
  ...worded.filter((file) => file !== 'scripts/words.ts').flatMap((file) => violations(file, WORDS)),
  ...[...worded, ...['test/', 'bench/'].flatMap(files)]
    .filter((file) => file.endsWith('.ts'))
    .flatMap((file) => violations(file, STYLE)),
];
if (found.length > 0) {
  process.stderr.write(`${found.join('\n')}\n`);
  process.exitCode = 1;
}
