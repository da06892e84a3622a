import { helpText } from '../../src/command-line/help.ts';

const [begin, end] = ['<!-- help -->', '<!-- /help -->'];

/** The README with the current help between its two markers. */
export function withHelp(readme: string): string {
  const head = readme.slice(0, readme.indexOf(begin) + begin.length);
  const tail = readme.slice(readme.indexOf(end));
  return `${head}\n\`\`\`\n${helpText()}\`\`\`\n${tail}`;
}
