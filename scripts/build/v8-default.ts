import { execFileSync } from 'node:child_process';

/** What the V8 of this Node has for a flag that takes a number when nobody sets it. Throws where it has no such flag. */
export function v8Default(flag: string): string {
  const options = execFileSync(process.execPath, ['--v8-options'], { encoding: 'utf8' });
  const found = new RegExp(`default: --${flag}=(\\d+)`).exec(options)?.[1];
  if (found === undefined) throw new Error(`V8 has no --${flag} any more`);
  return found;
}
