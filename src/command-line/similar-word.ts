import { DlrootfsError, ExitCode, NotFoundError, printable } from '../errors.ts';
import { shellWord } from '../sys/os-path.ts';
import { commands } from './commands.ts';
import { type Invocation, similarWords, suggestion } from './program.ts';

/** Returns the error with a hint about the word that was probably meant, if there is one. */
export function withSimilarWord(error: unknown, argv: readonly string[], invocation: Invocation): unknown {
  return withSimilarTag(withSimilarCommand(error, invocation), argv, invocation);
}

/**
 * Returns the error of a pull with another hint if its image could be a mistyped command. With -d or -o it is
 * an image.
 */
function withSimilarCommand(error: unknown, { command, words, given }: Invocation): unknown {
  const { notFound, unauthorized, network } = ExitCode;
  const codes: readonly number[] = [notFound, unauthorized, network];
  if (!(error instanceof DlrootfsError) || !codes.includes(error.exitCode)) return error;
  if (command !== 'pull' || given.has('dest') || given.has('output')) return error;
  const names = Object.keys(commands).filter((name) => name !== 'pull');
  const hint = suggestion(words[0]!, names)?.replaceAll(/(?<=mean | or )(?=\w)/g, 'dlrootfs ');
  if (hint === undefined) return error;
  return error.withHint(error.hint === undefined ? hint : `${hint} If not, ${error.hint}`);
}

/**
 * Returns the error of an unknown tag with another hint if the repository has a similar tag, or only one: the
 * command line with that tag. Other errors are returned as they are.
 */
function withSimilarTag(error: unknown, argv: readonly string[], invocation: Invocation): unknown {
  if (!(error instanceof NotFoundError) || error.tags === undefined) return error;
  const { tag, tags } = error.tags;
  const [similar, ...more] = tags.length === 1 ? tags : similarWords(tag, tags);
  // Several tags can be equally similar, and a registry can list a tag that it does not have.
  if (similar === undefined || similar === tag || more.length > 0) return error;
  const line = commandWith(similar, tag, argv, invocation);
  const said = line === undefined ? `name the tag ${similar}` : `write ${line}`;
  return error.withHint(`${said}; ${error.hint}`);
}

/**
 * Returns the command line with another tag of its image, for a shell; undefined if the image is not exactly
 * one of the words, and if a password may be among them.
 */
function commandWith(
  similar: string,
  tag: string,
  argv: readonly string[],
  { command, words, values }: Invocation,
): string | undefined {
  const [image = '', ...others] = command === 'cache' ? words.slice(1) : words;
  const hasOthers = others.length > 0 && (command === 'cache' || command === 'diff');
  if (hasOthers || values.user !== undefined || values.registryToken !== undefined) return undefined;
  const place = argv.indexOf(image);
  if (place < 0 || place !== argv.lastIndexOf(image) || image.includes('@')) return undefined;
  const name = image.endsWith(`:${tag}`) ? image.slice(0, -tag.length - 1) : image;
  const shown = argv.with(place, `${name}:${similar}`).map((word) => shellWord(word));
  const line = ['dlrootfs', ...shown].join(' ');
  return printable(line, Infinity) === line ? line : undefined;
}
