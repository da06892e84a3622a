import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { PASSWORD, type Case, type Placed } from './case.ts';
import { PORT, type SiteServer } from './site.ts';

/** Limit in milliseconds; a longer run counts as a hang. */
const LIMIT_MILLISECONDS = 60_000;
/** Limit of processor time. Input that takes more would be an attack on the machine. */
const LIMIT_CPU_SECONDS = 10;
const LIMIT_MIB = 200;
/** Exit codes that are allowed: all but 1, which is a bug. */
const exitCodes = new Set([0, 2, 3, 4, 5, 6, 7, 8]);
const CAPTURED_BYTES = 2 ** 20;

export interface Outcome {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly milliseconds: number;
  readonly cpuSeconds: number;
  /** Memory of the largest process, git included. */
  readonly mebibytes: number;
  /** Descriptions of the faults; empty if the run is right. */
  readonly faults: readonly string[];
}

export interface Place {
  readonly program: string;
  readonly server: SiteServer;
  /** Directory of this run alone, made before it and removed after it. */
  readonly work: string;
}

/** Runs one case in an empty directory and checks the result. */
export async function runCase(kind: string, each: Case, place: Place): Promise<Outcome> {
  const { work, server } = place;
  prepare(each, place);
  server.serve(each.site ?? {});
  const before = { names: namesIn(work), outside: look(`${work}/outside`) };
  const run = await execute(each, place);
  const faults = [...judge(kind, each, run), ...judgeFiles(kind, run.exitCode, before, work)];
  server.serve({});
  rmSync(work, { recursive: true, force: true });
  return { ...run, faults };
}

function prepare({ files = [] }: Case, { work }: Place): void {
  rmSync(work, { recursive: true, force: true });
  for (const name of ['', '/outside', '/outside/directory', '/tmp']) mkdirSync(work + name);
  writeFileSync(`${work}/outside/canary`, 'alive\n');
  for (const each of files) put(each, work);
}

function put({ path: name, type, content = Buffer.alloc(0) }: Placed, work: string): void {
  const target = path.join(work, name);
  const text = content.includes('@WORK@') ? content.toString('latin1').replaceAll('@WORK@', work) : undefined;
  const bytes = text === undefined ? content : Buffer.from(text, 'latin1');
  try {
    mkdirSync(path.dirname(target), { recursive: true });
    rmSync(target, { recursive: true, force: true });
    if (type === 'file') writeFileSync(target, bytes);
    else if (type === 'directory') mkdirSync(target);
    else if (type === 'symlink') symlinkSync(bytes, target);
    else if (type === 'fifo') execFileSync('mkfifo', [target], { stdio: 'ignore' });
  } catch {
    // A file that the case placed before is in the way.
  }
}

/**
 * Runs the case under GNU time. The peak of a child of Node includes Node's own memory, so a small process
 * asks the kernel.
 */
async function execute(each: Case, { program, server, work }: Place): Promise<Omit<Outcome, 'faults'>> {
  const fill = (text: string) =>
    text.replaceAll(`127.0.0.1:${PORT}`, `127.0.0.1:${server.port}`).replaceAll('@WORK@', work);
  const usage = `${work}.usage`;
  const environment = Object.fromEntries(
    Object.entries(each.environment ?? {}).map(([name, value]) => [name, fill(value)]),
  );
  const begin = performance.now();
  const child = spawn(
    '/usr/bin/time',
    ['-q', '-o', usage, '-f', '%M %U %S', program, ...each.argv.map(fill)],
    {
      cwd: work,
      env: { PATH: process.env['PATH'], HOME: '/nonexistent', TMPDIR: `${work}/tmp`, ...environment },
      detached: true,
    },
  );
  const outputs = [child.stdout, child.stderr].map((stream) => {
    const chunks: Buffer[] = [];
    let size = 0;
    stream.on('data', (chunk: Buffer) => {
      if (size < CAPTURED_BYTES) chunks.push(chunk);
      size += chunk.length;
    });
    return chunks;
  });
  child.stdin.on('error', () => undefined).end(each.stdin);
  const timer = setTimeout(() => process.kill(-child.pid!, 'SIGKILL'), LIMIT_MILLISECONDS);
  const exitCode = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve(code ?? 137));
  });
  clearTimeout(timer);
  const [kibibytes = 0, user = 0, system = 0] = (
    /[\d. ]+$/m.exec(readFileSync(usage, 'utf8'))?.[0] ?? '0 0 0'
  )
    .split(' ')
    .map(Number);
  const [stdout = '', stderr = ''] = outputs.map((chunks) => Buffer.concat(chunks).toString());
  const milliseconds = performance.now() - begin;
  return { exitCode, stdout, stderr, milliseconds, cpuSeconds: user + system, mebibytes: kibibytes / 1024 };
}

function* judge(kind: string, { argv }: Case, run: Omit<Outcome, 'faults'>): Generator<string> {
  const { exitCode, stdout, stderr } = run;
  const both = `${stdout}${stderr}`;
  if (run.milliseconds > LIMIT_MILLISECONDS - 1000) yield 'hangs';
  if (!exitCodes.has(exitCode)) yield `exit code ${exitCode}`;
  if (/^\s+at \S.*[:(]/m.test(stderr)) yield 'stack trace';
  if (
    /this is a bug|node:internal|FATAL ERROR|Segmentation|Unhandled|^Warning: (?!Ignoring extra certs)/m.test(
      stderr,
    )
  )
    yield 'bug';
  if (run.mebibytes > LIMIT_MIB) yield 'memory';
  if (run.cpuSeconds > LIMIT_CPU_SECONDS) yield 'processor time';
  const secrets = [PASSWORD, Buffer.from(`me:${PASSWORD}`).toString('base64')];
  if (kind !== 'arguments' && secrets.some((secret) => both.includes(secret))) yield 'password';
  const asked = argv.some((word) => /json|tty|^(?:completion|help|-h|--help)$/.test(word));
  // oxlint-disable-next-line no-control-regex
  if (!asked && /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e]/.test(both))
    yield 'control character';
  if (argv.includes('json')) return;
  const lines = stderr.trimEnd().split('\n');
  if (lines.at(-1)?.startsWith('kept: ') === true) lines.pop();
  const last = lines.at(-1) ?? '';
  const error = last.startsWith('hint: ') ? (lines.at(-2) ?? '') : last;
  if (exitCode !== 0 && !error.startsWith('error: ')) yield 'no error: line';
  if (exitCode !== 0 && lines.filter((line) => line.startsWith('error: ')).length > 1)
    yield 'two error: lines';
  if (exitCode === 0 && lines.some((line) => line.startsWith('error: '))) yield 'error: line with exit 0';
}

interface Look {
  readonly names: readonly string[];
  readonly outside: string;
}

function* judgeFiles(kind: string, exitCode: number, before: Look, work: string): Generator<string> {
  if (look(`${work}/outside`) !== before.outside) yield 'written outside DIR';
  const names = namesIn(work);
  if (names.some((name) => /dlrootfs-/.test(name))) yield 'stage left behind';
  if (readdirSync(`${work}/tmp`).length > 0) yield 'temporary file left behind';
  if (exitCode === 0 && isBadDisk(`${work}/out.erofs`)) yield 'fsck.erofs refuses the disk image';
  const fresh = names.filter((name) => !before.names.includes(name) && name !== 'cache');
  if (exitCode !== 0 && kind !== 'arguments' && fresh.length > 0) yield `left behind: ${fresh.join(' ')}`;
}

/** fsck.erofs may not be installed. */
function isBadDisk(image: string): boolean {
  return existsSync(image) && (spawnSync('fsck.erofs', [image], { stdio: 'ignore' }).status ?? 0) !== 0;
}

function namesIn(directory: string): string[] {
  return readdirSync(directory, 'latin1');
}

/** Prints all entries below a directory, without access times. */
function look(directory: string): string {
  const names = readdirSync(directory, { recursive: true, encoding: 'latin1' }).toSorted();
  const lines = ['', ...names].map((name) => {
    const target = Buffer.from(`${directory}/${name}`, 'latin1');
    const { mode, uid, gid, nlink, mtimeNs } = lstatSync(target, { bigint: true });
    const plain = (Number(mode) & 0o170000) === 0o100000;
    const content = plain ? createHash('sha256').update(readFileSync(target)).digest('hex') : '';
    return [name, mode, uid, gid, nlink, mtimeNs, content].join(' ');
  });
  return lines.join('\n');
}
