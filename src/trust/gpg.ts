import { once } from 'node:events';
import type { FileHandle } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { spawnBound } from '../sys/child.ts';
import { findProgram, type Environment } from '../sys/os-path.ts';
import { armoredBlocks } from './keys.ts';
import { Refusal } from './refusal.ts';

/** Descriptors that gpgv inherits. */
const STATUS = 3;
const KEYRING = '/proc/self/fd/4';
const SIGNATURE_FILE = '/proc/self/fd/5';
/** Limit in bytes on the content of a signature, and on the messages of gpgv. */
const MAX_OUTPUT_BYTES = 1024 * 1024;

/** Returns the absolute path of `gpgv`; undefined if it is not installed. */
export function findGpgv(environment: Environment): string | undefined {
  return findProgram('gpgv', environment);
}

/** Returns the keys in the form that gpgv reads: without armor. */
export function keyringOf(keys: readonly Uint8Array[]): Buffer {
  return Buffer.concat(
    keys.flatMap((bytes) => {
      // The first bit of a packet is set.
      if ((bytes[0] ?? 0) >= 0x80) return [bytes];
      const blocks = armoredBlocks(Buffer.from(bytes).toString('latin1'));
      return blocks
        .filter(({ label }) => label === 'PGP PUBLIC KEY BLOCK')
        .map(({ body }) => withoutArmor(body));
    }),
  );
}

/** Returns the bytes in a block of armor (RFC 9580, 6.2): headers up to an empty line, base64, a checksum. */
function withoutArmor(block: string): Buffer {
  const lines = block.split('\n').map((line) => line.trim());
  const empty = lines.indexOf('', 1);
  const body = empty === -1 ? [] : lines.slice(empty).filter((line) => !line.startsWith('='));
  return Buffer.from(body.join(''), 'base64');
}

export interface GpgRun {
  /** An absolute path. */
  readonly gpgv: string;
  /** The trusted keys. */
  readonly keyring: Uint8Array;
  /** A file that only this process can open. */
  readonly temporaryFile: () => Promise<FileHandle>;
  readonly signal: AbortSignal;
}

/**
 * Returns the content of a GPG signature, after gpgv verified it with these keys only. The user's keys and
 * settings are not read.
 *
 * @throws Refusal
 */
export async function verifyGpg(signature: Uint8Array, run: GpgRun): Promise<Uint8Array> {
  const { gpgv, keyring, temporaryFile, signal } = run;
  await using keys = await temporaryFile();
  await keys.writeFile(keyring);
  await using signed = await temporaryFile();
  await signed.writeFile(signature);
  signal.throwIfAborted();
  const child = spawnBound(
    gpgv,
    `--homedir /nonexistent --keyring ${KEYRING} --status-fd ${STATUS} --output - ${SIGNATURE_FILE}`.split(
      ' ',
    ),
    {
      environment: { LC_ALL: 'C.UTF-8' },
      stdio: ['ignore', 'pipe', 'ignore', 'pipe', keys.fd, signed.fd],
    },
  );
  const kill = (): void => void child.kill('SIGKILL');
  signal.addEventListener('abort', kill, { once: true });
  try {
    const ended = once(child, 'close') as Promise<[number | null]>;
    const [payload, status, [code]] = await Promise.all([
      readOutput(child.stdio[1] as Readable, kill),
      readOutput(child.stdio[3] as Readable, kill),
      ended,
    ]);
    signal.throwIfAborted();
    requireGood(status.toString('latin1'), code);
    return payload;
  } finally {
    signal.removeEventListener('abort', kill);
  }
}

/** @throws Refusal for more than the limit */
async function readOutput(stream: Readable, kill: () => void): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_OUTPUT_BYTES) {
      kill();
      throw new Refusal(`it contains more than ${MAX_OUTPUT_BYTES} bytes`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Keywords of gpgv's status (GnuPG's doc/DETAILS) that refuse a signature. */
const BAD: Readonly<Record<string, string>> = {
  NO_PUBKEY: 'it was not made with a key of the policy',
  BADSIG: 'it does not match its content',
  EXPSIG: 'it has expired',
  EXPKEYSIG: 'its key has expired',
  REVKEYSIG: 'its key was revoked',
  ERRSIG: 'it cannot be checked',
};

/** @throws Refusal unless the status reports exactly one good signature */
function requireGood(status: string, code: number | null): void {
  const words = [...status.matchAll(/^\[GNUPG:\] ([A-Z_]+)/gm)].map(([, word = '']) => word);
  const bad = Object.keys(BAD).find((word) => words.includes(word));
  if (bad !== undefined) throw new Refusal(BAD[bad]);
  const count = (word: string): number => words.filter((each) => each === word).length;
  if (count('NEWSIG') > 1) throw new Refusal('it holds several signatures');
  if (code !== 0 || count('GOODSIG') !== 1 || count('VALIDSIG') !== 1)
    throw new Refusal('it is no signature of GPG');
}
