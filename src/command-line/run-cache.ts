import { pruneStore, storeSize } from '../blob/maintenance.ts';
import { UsageError, printable } from '../errors.ts';
import { nativeCalls } from '../native-calls.ts';
import { defaultCacheDirectory } from '../options.ts';
import { formatBytes } from '../report/progress.ts';
import { utf8Directory } from '../sys/os-path.ts';
import type { Invocation } from './parse.ts';
import { utf8Name } from './pull-request.ts';
import { parseBytes } from './quantities.ts';
import type { CliContext } from './run.ts';

/** `dlrootfs cache [size|prune]`: what the store holds; prune empties it, or makes it fit `--cache-size`. */
export async function runCache(invocation: Invocation, context: CliContext): Promise<number> {
  const { values, words } = invocation;
  const { stdout, environment } = context;
  const named = values['cacheDir'] as string | undefined;
  const directory =
    named === undefined ? defaultCacheDirectory(environment) : utf8Name(named, '--cache-dir', utf8Directory);
  if (directory === undefined)
    throw new UsageError('there is no home directory to keep a cache in', { hint: 'use --cache-dir DIR' });
  const what = words[0] ?? 'size';
  const json = values['json'] === true;
  if (what === 'size') {
    const size = await storeSize(directory);
    const text = `${printable(directory)}: ${size.blobs} files, ${size.partials} partial, ${formatBytes(size.bytes)}`;
    stdout.write(`${json ? JSON.stringify({ directory, ...size }) : text}\n`);
    return 0;
  }
  if (what !== 'prune') {
    throw new UsageError(`unexpected argument: ${printable(what)}`, {
      hint: 'dlrootfs cache size, or dlrootfs cache prune',
    });
  }
  const keep = invocation.given.has('cache-size')
    ? parseBytes(String(values['cacheSize']), '--cache-size')
    : 0;
  const gone = await pruneStore(directory, keep, nativeCalls());
  const text = `${printable(directory)}: ${gone.files} files removed, ${formatBytes(gone.bytes)}`;
  stdout.write(`${json ? JSON.stringify({ directory, ...gone }) : text}\n`);
  return 0;
}
