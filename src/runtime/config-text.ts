import type { Container } from './container.ts';

/**
 * True if the text fits into a line of a configuration file: no reader takes any of its characters as the
 * line's end.
 */
export function isOneLine(text: string): boolean {
  // eslint-disable-next-line no-control-regex
  return !/[\u0000-\u0008\u000a-\u001f\u007f\u0085\u2028\u2029]/u.test(text);
}

/** Command and variables of a container for a configuration file of lines. */
export interface ConfigLines {
  readonly variables: readonly (readonly [name: string, value: string])[];
  /** Undefined if the file cannot hold it. */
  readonly command: string | undefined;
  /** Reports of lost variables. */
  readonly notices: readonly string[];
}

/**
 * Returns command and variables for a configuration file of lines. If a line break, or a word that `quote`
 * cannot write, requires it, the command is run by a shell, if the container has one: see `wrappedCommand`.
 *
 * @param runtime its name in notices
 * @param quote writes a word of the command, without a line break; undefined for one that the file cannot
 * hold
 */
export function configLines(
  { args, environment }: Pick<Container, 'args' | 'environment'>,
  runtime: string,
  hasShell: boolean,
  quote: (word: string) => string | undefined,
): ConfigLines {
  const all = [...environment];
  const variables = all.filter(([name, value]) => isOneLine(name) && isOneLine(value));
  const broken = new Map(
    hasShell ? all.filter(([name, value]) => !isOneLine(value) && isShellName(name)) : [],
  );
  const lost = all.length - variables.length - broken.size;
  const notices =
    lost > 0 ? [`${runtime} cannot express ${lost} variables of the image: they have line breaks`] : [];
  const write = (word: string) => (isOneLine(word) ? quote(word) : undefined);
  const needsShell = broken.size > 0 || args.some((word) => write(word) === undefined);
  const words = (needsShell && hasShell ? wrappedCommand(args, broken) : args).map((word) => write(word));
  return { variables, command: words.includes(undefined) ? undefined : words.join(' '), notices };
}

/** Returns the text for a comment, without line breaks. */
export function commented(text: string): string {
  return JSON.stringify(text)
    .slice(1, -1)
    .replaceAll(/[\u007f\u0085\u2028\u2029]/g, '?');
}

/** A configuration as text, and the settings that it cannot hold. */
export interface RuntimeConfig {
  readonly text: string;
  /** One line each, for people. */
  readonly notices: readonly string[];
}

/**
 * Returns a shell command that sets variables and runs a command line. It is for text that a configuration
 * file of lines cannot hold: newlines, and for LXC words with both kinds of quotes. The script is a single
 * line of plain characters without single quotes, so that any file can hold it.
 */
function wrappedCommand(args: readonly string[], variables: ReadonlyMap<string, string>): string[] {
  const define = 'v() { x="$(printf "$1.")"; x="${x%.}"; }';
  const exports = [...variables].map(([name, value]) => `v "${octal(`${name}=${value}`)}"; export "$x"`);
  const words = args.map((word) => `v "${octal(word)}"; set -- "$@" "$x"`);
  return ['/bin/sh', '-c', [define, ...exports, ...words, 'exec "$@"'].join('; ')];
}

/** True for names that a shell can export; others are not given to it. */
function isShellName(name: string): boolean {
  return /^[A-Za-z_][A-Za-z0-9_]*$/.test(name);
}

/**
 * Returns the text as a format of printf(1): all but the plainest characters as three octal digits per byte,
 * a hyphen too, which could begin an option.
 */
function octal(text: string): string {
  return text.replaceAll(/[^A-Za-z0-9 _./:=,@+]/gu, (character) =>
    [...Buffer.from(character)].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join(''),
  );
}
