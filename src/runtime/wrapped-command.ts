/**
 * A command line and variables that a configuration file of lines cannot say (newlines, and for LXC words with both kinds of
 * quotes), said by a shell inside the container. The script itself is a single line of plain characters, no single quotes
 * in it, so that any file can hold it.
 */
export function wrappedCommand(args: readonly string[], variables: ReadonlyMap<string, string>): string[] {
  const define = 'v() { x="$(printf "$1.")"; x="${x%.}"; }';
  const exports = [...variables].map(([name, value]) => `v "${octal(`${name}=${value}`)}"; export "$x"`);
  const words = args.map((word) => `v "${octal(word)}"; set -- "$@" "$x"`);
  return ['/bin/sh', '-c', [define, ...exports, ...words, 'exec "$@"'].join('; ')];
}

/** Names that a shell can export; others are not given to it. */
export function isShellName(name: string): boolean {
  return /^[A-Za-z_][A-Za-z0-9_]*$/.test(name);
}

/** Text as a format of printf(1): everything but the plainest characters as three octal digits a byte; a hyphen could be an option. */
function octal(text: string): string {
  return text.replaceAll(/[^A-Za-z0-9 _./:=,@+]/gu, (character) =>
    [...Buffer.from(character)].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join(''),
  );
}
