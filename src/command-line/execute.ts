import { existsSync } from 'node:fs';
import { geteuid } from 'node:process';
import { text as contentOf } from 'node:stream/consumers';
import type { StoreSize } from '../blob/store.ts';
import type { Difference } from '../comparison/differences.ts';
import { DestinationError, DlrootfsError, ExitCode, UsageError, printable } from '../errors.ts';
import type { CacheRequest, ImagesRequest, PullRequest } from '../requests.ts';
import { terminalReport } from '../report/bars.ts';
import { type LiveReport, type Report, fanOut, jsonLinesReport } from '../report/event.ts';
import { formatBytes, plainReport } from '../report/progress.ts';
import { type Inspection, messageReport, textReport } from '../report/text.ts';
import { runtimes } from '../runtime/config-files.ts';
import { limitHeapGrowth } from '../sys/native.ts';
import { osPath } from '../sys/os-path.ts';
import { version } from '../version.ts';
import type { CommandName, FlagValues } from './commands.ts';
import type { CliContext } from './context.ts';
import { foreignCacheWord } from './other-tools.ts';
import { type Invocation, parseArguments } from './program.ts';

/** Runs a command; returns the exit code unless it is 0. */
type RunCommand = (invocation: Invocation, context: CliContext) => Promise<number | void>;

/**
 * Runs one command line. Loads only the modules of that command.
 *
 * @returns the exit code of a run that did not fail
 * @throws errors for `describeFailure`
 */
export async function runCommand(argv: readonly string[], context: CliContext): Promise<number> {
  if (argv[0] === '__complete') {
    const { completions } = await import('./completions.ts');
    context.stdout.write(completions(argv[1], await contentOf(context.stdin)));
    return ExitCode.done;
  }
  const invocation = parseArguments(argv);
  if (mayNeedNamespace(invocation)) {
    const { enterUserNamespace } = await import('./userns.ts');
    const exitCode = await enterUserNamespace(invocation, argv, context);
    if (exitCode !== undefined) return exitCode;
  }
  const exitCode = await runInvocation(invocation, context).catch(async (error: unknown) => {
    throw (await import('./similar-word.ts')).withSimilarWord(error, argv, invocation);
  });
  return exitCode ?? ExitCode.done;
}

/**
 * True if a command may have to run in the user namespace of --userns: the flag is given, or DIR may have
 * been made with it. Root and `-o` keep the true owners without it.
 */
function mayNeedNamespace({ command, values, given }: Invocation): boolean {
  const isAboutDirectory = command === 'verify' || (command === 'pull' && values.output === undefined);
  if (!isAboutDirectory || geteuid?.() === 0) return false;
  return given.has('userns') ? values.userns === true : existsSync(osPath(values.destination!));
}

async function runInvocation(invocation: Invocation, context: CliContext): Promise<number | void> {
  const { command, words } = invocation;
  const print = (text: string) => void context.stdout.write(text);
  if (command === 'version') return print(`${version}\n`);
  if (command === 'help')
    return print(
      (await import('./help.ts')).helpText(
        words.join(' '),
        invocation.values.all,
        context.stdout.columns || undefined,
      ),
    );
  if (command === 'completion') return print((await import('./completions.ts')).completionScript(words[0]!));
  if (!context.workingDirectoryExists())
    throw new DestinationError('the working directory does not exist any more', {
      hint: 'cd to another directory',
    });
  return await RUNS[command](invocation, context);
}

const RUNS: Readonly<Record<Exclude<CommandName, 'version' | 'help' | 'completion'>, RunCommand>> = {
  pull: runPull,
  cache: runCache,
  cat: runCat,
  ls: runList,
  diff: runComparison,
  inspect: runInspect,
  tags: runTags,
  verify: runComparison,
};

/** Runs `dlrootfs IMAGE`. */
async function runPull(invocation: Invocation, context: CliContext): Promise<number | void> {
  const { values } = invocation;
  if (values.dryRun === true)
    return await (values.replace === undefined ? runInspect : runPreview)(invocation, context);
  if (values.output !== undefined) {
    const output = STDOUT_NAMES.has(values.output) ? '-' : values.output;
    return await runExport(invocation, output, context);
  }
  if (values.git === true) limitHeapGrowth();
  const { stdout } = context;
  const lines = values.quiet !== true && values.json !== true;
  const summary = await reporting(invocation, context, lines, ({ pull }, request) =>
    pull(request.image, request),
  );
  if (values.json === true) printJson(summary, context);
  else if (values.quiet === true) stdout.write(osPath(`${summary.destination}\n`));
  // A password that was typed, or is in a file or a variable, is not in the shell's history.
  else if (/^:|:./.test(values.user ?? '') || values.registryToken)
    stdout.write("WARNING: don't forget to remove your docker hub credentials from your history !!\n");
}

/** Names of standard output as a file: other lines would damage the archive. */
const STDOUT_NAMES: ReadonlySet<string> = new Set(['/dev/stdout', '/dev/fd/1', '/proc/self/fd/1']);

/** Flags that need a directory. */
const NOT_WITH_OUTPUT = ['dest', 'git', 'merge', 'replace', 'rootless', 'prepare'] as const;

/** Runs `dlrootfs IMAGE -o FILE`. */
async function runExport(invocation: Invocation, output: string, context: CliContext): Promise<void> {
  const { values, given } = invocation;
  const { stdout } = context;
  const contradiction = NOT_WITH_OUTPUT.find((name) => given.has(name));
  if (contradiction !== undefined) {
    const spelled = given.get(contradiction)!;
    throw new UsageError(`cannot use ${spelled} with ${given.get('output')!}`, {
      hint: `leave out ${spelled}, or ${given.get('output')!} for a directory`,
    });
  }
  const runtime = runtimes.find((name) => values.for?.includes(name));
  if (runtime !== undefined)
    throw new UsageError(`cannot use --for ${runtime} with -o: it needs a directory`, {
      hint: 'use -d DIR; --for qemu is for a disk (-o FILE.ext4)',
    });
  if (output === '-' && values.json === true)
    throw new UsageError('cannot use --json with -o -: the archive is on standard output', {
      hint: 'use -o FILE.tar, or --progress json for standard error',
    });
  if (output === '-' && stdout.isTTY === true)
    throw new UsageError('cannot write the archive to a terminal', { hint: 'use -o FILE.tar, or a pipe' });
  const lines = values.quiet !== true && values.json !== true && output !== '-';
  const summary = await reporting(invocation, context, lines, ({ exportArchive }, request) =>
    exportArchive(request.image, output === '-' ? stdout : output, request),
  );
  if (output === '-') return;
  if (values.json === true) printJson(summary, context);
  else if (values.quiet === true) stdout.write(osPath(`${output}\n`));
}

/**
 * Runs `dlrootfs inspect IMAGE`, and a pull with `--dry-run`. With -q prints only the digest, with --index
 * that of the index.
 */
async function runInspect(invocation: Invocation, context: CliContext): Promise<void> {
  const { stdout } = context;
  const found = await reporting(invocation, context, false, ({ inspect }, request) =>
    inspect(request.image, request),
  );
  if (invocation.values.json === true) return printJson(found, context);
  const { quiet, index } = invocation.values;
  if (index === true) return void stdout.write(`${found.indexDigest ?? manifestDigest(found)}\n`);
  if (quiet === true) return void stdout.write(`${manifestDigest(found)}\n`);
  const { inspectionText } = await import('../report/text.ts');
  stdout.write(inspectionText(found, (stdout.isTTY === true && stdout.columns) || undefined));
}

/** Runs `dlrootfs IMAGE --replace --dry-run`. That the pull would change DIR is no failure. */
async function runPreview(invocation: Invocation, context: CliContext): Promise<number | void> {
  const { stdout } = context;
  const found = await reporting(invocation, context, false, ({ preview }, request) =>
    preview(request.image, request),
  );
  if (invocation.values.json === true) printJson(found, context);
  else if (invocation.values.quiet !== true) {
    const { previewText } = await import('../report/text.ts');
    stdout.write(previewText(found));
  }
  return found.changed ? ExitCode.different : undefined;
}

/**
 * Returns the digest of the manifest.
 *
 * @throws UsageError for an image without a manifest
 */
function manifestDigest({ digest, reference }: Inspection): string {
  if (digest !== undefined) return digest;
  throw new UsageError(`${reference} has no digest: its registry or archive has no manifests`, {
    hint: 'leave out -q, and see its Image ID',
  });
}

/** Runs `dlrootfs cat IMAGE PATH`. */
async function runCat(invocation: Invocation, context: CliContext): Promise<void> {
  await reporting(invocation, context, false, ({ cat }, request) =>
    cat(request.image, invocation.words[1]!, context.stdout, request),
  );
}

/** Runs `dlrootfs ls IMAGE [PATH]`: prints one name per line. */
async function runList(invocation: Invocation, context: CliContext): Promise<void> {
  const [, path = '/'] = invocation.words;
  const found = await reporting(invocation, context, false, ({ list }, request) =>
    list(request.image, path, request),
  );
  const { listingText } = await import('../report/text.ts');
  context.stdout.write(listingText(found, invocation.values.long === true));
}

/** Runs `dlrootfs verify IMAGE` and `dlrootfs diff IMAGE1 IMAGE2`: prints one line per difference. */
async function runComparison(invocation: Invocation, context: CliContext): Promise<number | void> {
  const { json, quiet, contents, layers } = invocation.values;
  const other = invocation.words[1];
  const compare: Work<{ readonly differences: readonly Difference[] }> = ({ verify, diff }, request) =>
    other === undefined
      ? verify(request.image, { ...request, contents })
      : diff(request.image, other, { ...request, layers: layersOfBoth(layers) });
  const found = await reporting(invocation, context, false, compare).catch((error: unknown) => {
    throw aboutDirectory(error, invocation);
  });
  const { differences } = found;
  if (json === true) printJson(found, context);
  else if (quiet !== true) {
    const { differenceText } = await import('../comparison/differences.ts');
    context.stdout.write(differences.map((difference) => `${differenceText(difference)}\n`).join(''));
  }
  return differences.length > 0 ? ExitCode.different : undefined;
}

/**
 * Returns the layers for `dlrootfs diff`: for both images, or for each.
 *
 * @throws UsageError for more than two values
 */
function layersOfBoth(layers: FlagValues['layers'] = []): ImagesRequest['layers'] {
  const [first, second, ...more] = layers;
  if (more.length > 0)
    throw new UsageError('diff takes --layers twice at most: for the first image, and for the second', {
      hint: 'leave one of them out',
    });
  return layers.length === 2 ? [first, second] : first;
}

/**
 * Returns the error with another hint if a word that failed as an image is an existing directory. After a
 * network error it may be an image too.
 */
function aboutDirectory(error: unknown, { command, words }: Invocation): unknown {
  const { usage, notFound, unauthorized, destination, network } = ExitCode;
  const codes: readonly number[] = [usage, notFound, unauthorized, destination, network];
  if (!(error instanceof DlrootfsError) || !codes.includes(error.exitCode)) return error;
  const directory = words.findLast((word) => existsSync(osPath(`${word}/.`)));
  if (directory === undefined) return error;
  const image = command === 'diff' ? words.find((word) => word !== directory) : undefined;
  const shown = printable(directory);
  const line = `dlrootfs verify ${printable(image ?? 'IMAGE')} -d ${shown}`;
  return error.withHint(
    error.exitCode === network && error.hint !== undefined
      ? `${error.hint}; to compare the directory ${shown} with an image write ${line}`
      : `${shown} is a directory: to compare it with an image write ${line}`,
  );
}

/** Runs `dlrootfs tags REPOSITORY`: prints one tag per line, or one JSON array. */
async function runTags(invocation: Invocation, context: CliContext): Promise<void> {
  const json = invocation.values.json === true;
  const onTag = (tag: string) => void context.stdout.write(`${printable(tag)}\n`);
  const all = await reporting(invocation, context, false, ({ listTags }, request) =>
    listTags(request.image, { ...request, onTag: json ? undefined : onTag }),
  );
  if (json) printJson(all, context);
}

/** Runs `dlrootfs cache [size|prune|list|add IMAGE…|rm IMAGE…]`. */
async function runCache(invocation: Invocation, context: CliContext): Promise<void> {
  const { values, words } = invocation;
  const [what = 'size', ...images] = words;
  if (what === 'add' || what === 'rm') {
    if (images.length === 0)
      throw new UsageError(`cache ${what} needs an image`, { hint: `write dlrootfs cache ${what} IMAGE` });
    const run = what === 'add' ? runCacheAdd : runCacheRemoval;
    for (const image of images) await run(image, invocation, context);
    return;
  }
  if (!['size', 'prune', 'list'].includes(what) || images.length > 0) {
    const meant = images.length === 0 && foreignCacheWord(what);
    throw new UsageError(`unexpected word: ${printable(images[0] ?? what)}`, {
      hint: `write dlrootfs cache ${meant || 'size, list or prune, or dlrootfs cache add IMAGE or rm IMAGE'}`,
    });
  }
  const { cache } = await import('../index.ts');
  const request = cacheRequest(invocation, context);
  if (what === 'size') {
    const size = await cache.size(request);
    printCache(size, countsOf(size), values, context);
  } else if (what === 'prune') {
    const removed = await cache.prune(request);
    printCache(removed, `removed ${countsOf(removed)}`, values, context);
  } else {
    const found = await cache.list(request);
    if (values.json === true) printJson(found, context);
    else context.stdout.write((await import('../report/text.ts')).storedImagesText(found));
  }
}

function cacheRequest({ values }: Invocation, { environment, signal }: CliContext): CacheRequest {
  const { cacheDirectory, cacheSize } = values;
  return { cacheDirectory, cacheSize, environment, signal };
}

/** Runs `dlrootfs cache rm IMAGE`. */
async function runCacheRemoval(image: string, invocation: Invocation, context: CliContext): Promise<void> {
  const { cache } = await import('../index.ts');
  const removed = await cache.remove(image, cacheRequest(invocation, context));
  printCache(removed, `removed ${countsOf(removed)}`, invocation.values, context);
}

function countsOf({ blobs, partials, bytes }: StoreSize): string {
  return `${blobs} ${blobs === 1 ? 'blob' : 'blobs'}, ${partials} partial, ${formatBytes(bytes)}`;
}

/** Runs `dlrootfs cache add IMAGE`. */
async function runCacheAdd(image: string, invocation: Invocation, context: CliContext): Promise<void> {
  const named = { ...invocation, words: [image] };
  const added = await reporting(named, context, false, ({ cache }, request) => cache.add(image, request));
  const { reference, layers, sizes } = added;
  const fetched = `${formatBytes(sizes.network)} downloaded, ${formatBytes(sizes.cache)} cached before`;
  const counted = `${layers} ${layers === 1 ? 'layer' : 'layers'}`;
  printCache(added, `has ${reference}: ${counted}, ${fetched}`, invocation.values, context);
}

function printCache(
  result: { readonly directory: string },
  text: string,
  { json }: FlagValues,
  context: CliContext,
): void {
  if (json === true) printJson(result, context);
  else context.stdout.write(`${printable(result.directory)}: ${text}\n`);
}

function printJson(result: unknown, { stdout }: CliContext): void {
  stdout.write(`${JSON.stringify(result)}\n`);
}

/** Calls the library, with the request that the flags and the environment make. */
type Work<T> = (
  library: typeof import('../index.ts'),
  request: PullRequest & { readonly report: Report },
) => Promise<T>;

/**
 * Runs `work` with the reporters that the flags select: the original's lines on standard output, the rest on
 * standard error.
 */
async function reporting<T>(
  invocation: Invocation,
  context: CliContext,
  linesOnStdout: boolean,
  work: Work<T>,
): Promise<T> {
  const [library, { pullRequest }] = await Promise.all([import('../index.ts'), import('./request.ts')]);
  const request = await pullRequest(invocation, context);
  const { report, stop } = openErrorChannel(invocation, context, linesOnStdout);
  const wholeLines = styleOf(invocation, context) !== 'tty' && context.isSharedOutput();
  const all = linesOnStdout ? fanOut([report, textReport(context.stdout, wholeLines)]) : report;
  try {
    return await work(library, { ...request, report: all });
  } finally {
    stop();
  }
}

/** Returns the style of the progress: that of `--progress`, else by the kind of standard error. */
function styleOf({ values }: Invocation, { stderr, environment }: CliContext) {
  if (values.progress !== undefined && values.progress !== 'auto') return values.progress;
  if (values.quiet === true) return 'none';
  return stderr.isTTY === true && environment['TERM'] !== 'dumb' ? 'tty' : 'plain';
}

/**
 * Opens the reporter on standard error: progress in the style of `--progress`, notices, and with -v debug
 * messages.
 */
function openErrorChannel(invocation: Invocation, context: CliContext, linesOnStdout: boolean): LiveReport {
  const { stdout, stderr } = context;
  const verbose = invocation.values.verbose === true;
  const style = styleOf(invocation, context);
  if (style === 'json') return { report: jsonLinesReport(stderr, verbose), stop: () => undefined };
  const messages = messageReport(stderr, verbose);
  if (style === 'none') return { report: messages, stop: () => undefined };
  const live =
    style === 'tty' ? terminalReport(stderr, linesOnStdout && stdout.isTTY === true) : plainReport(stderr);
  return { report: fanOut([live.report, messages]), stop: live.stop };
}
