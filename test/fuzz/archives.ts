import {
  block,
  character,
  checksumField,
  dir,
  endMark,
  fifo,
  file,
  hardlink,
  header,
  longHeader,
  opaque,
  paxHeader,
  raw,
  sparse,
  symlink,
  tarAs,
  whiteout,
  type Bytes,
  type Item,
  type Metadata,
} from '../support/archive.ts';
import { mutateBytes, oddText } from './mutate.ts';
import type { Random } from './random.ts';

/** Few names, so that entries conflict: a directory and a file, a link to a later entry. */
const names: readonly Bytes[] = [
  'a',
  'b',
  'a/b',
  'a/b/c',
  'b/c',
  'link',
  'link/x',
  'a/link/x',
  './a',
  'a//b/',
  '',
  '.',
  './',
  '/',
  '/etc/passwd',
  'etc',
  'etc/passwd',
  'etc/group',
  'etc/ld.so.cache',
  'bin/sh',
  'json',
  'layersize',
  '.git',
  '.git/config',
  '.git/HEAD',
  '.gitattributes',
  'a/.git/config',
  '.gitmodules',
  '..',
  '../outside/escaped',
  '../../outside/escaped',
  'a/../../outside/escaped',
  'link/../outside/escaped',
  '/proc/self/cwd/outside/escaped',
  '.wh.',
  '.wh..',
  '.wh...',
  '.wh..wh.plnk',
  'a/.wh..wh..opq',
  'new\nline',
  '\u001b[31mred',
  'ümlaut',
  Buffer.from('latin\xe9\xff', 'latin1'),
  'nul\u0000byte',
  'x'.repeat(255),
  'y'.repeat(256),
  `${'long/'.repeat(60)}end`,
  `${'d/'.repeat(1500)}deep`,
];

const linkTargets: readonly Bytes[] = [
  ...names,
  '../outside',
  '../../outside',
  '../../../../../../../../../../proc/self/cwd/outside',
  '/proc/self/cwd/outside',
  'link',
  '.',
  '/',
];

function metadata(random: Random): Metadata {
  return {
    ...(random.percent(30) && { mode: random.below(0o10000) }),
    ...(random.percent(15) && { uid: random.pick([0, 1, 65_534, 2 ** 31, 2 ** 32 - 1, 2 ** 40]) }),
    ...(random.percent(15) && { gid: random.pick([0, 5, 65_534, 2 ** 31, 2 ** 33]) }),
    ...(random.percent(10) && { mtime: random.pick([0, -1, 2 ** 33, 2 ** 53, -(2 ** 40)]) }),
    ...(random.percent(10) && { uname: oddText(random).slice(0, 30), gname: oddText(random).slice(0, 30) }),
    ...(random.percent(12) && { xattrs: { [attribute(random)]: oddText(random) } }),
    ...(random.percent(12) && { pax: Object.fromEntries(random.list(1, 4, () => record(random))) }),
  };
}

function attribute(random: Random): string {
  return random.pick([
    'user.x',
    'security.capability',
    'security.selinux',
    'system.posix_acl_access',
    'system.posix_acl_default',
    'trusted.overlay.opaque',
    'trusted.x',
    '',
    'x'.repeat(300),
    'user.a=b',
  ]);
}

const recordNames = [
  'path',
  'linkpath',
  'size',
  'uid',
  'gid',
  'uname',
  'gname',
  'mtime',
  'atime',
  'ctime',
  'hdrcharset',
  'charset',
  'comment',
  'GNU.sparse.major',
  'GNU.sparse.minor',
  'GNU.sparse.name',
  'GNU.sparse.realsize',
  'GNU.sparse.size',
  'GNU.sparse.numblocks',
  'GNU.sparse.offset',
  'GNU.sparse.numbytes',
  'GNU.sparse.map',
  'SCHILY.acl.access',
  'SCHILY.acl.default',
  'SCHILY.dev',
  'SCHILY.fflags',
  'SCHILY.filetype',
  'SCHILY.realsize',
  'SCHILY.xattr.user.y',
  'SCHILY.xattr.security.capability',
  'LIBARCHIVE.xattr.user.z',
  'LIBARCHIVE.symlinktype',
  'RHT.security.selinux',
  'MSWINDOWS.rawsd',
  '__proto__',
];

const recordValues = [
  '0',
  '1',
  '-1',
  '99999999999999999999',
  '1.999999999999',
  '-1.5',
  '0,1',
  '0,1,1,1',
  '5,1,0,1',
  'BINARY',
  'user::rwx,group::r-x,other::r--',
  'user::rwx\nuser:1:rw-\n',
  '../../outside/escaped',
  'a/b',
  '',
];

function record(random: Random): readonly [string, string] {
  const value = random.percent(75) ? random.pick(recordValues) : oddText(random);
  return [random.percent(95) ? random.pick(recordNames) : oddText(random), value];
}

type MakeItem = (random: Random, name: Bytes, more: Metadata) => Item;

const items: readonly MakeItem[] = [
  (random, name, more) => file(name, random.bytes(random.pick([0, 1, 511, 512, 513, 3000])), more),
  (_, name, more) => file(name, 'root:x:0:0:root:/root:/bin/sh\nbad line\n\n', more),
  (_, name, more) => dir(name, more),
  (_, name, more) => dir(name, more),
  (random, name, more) => symlink(name, random.pick(linkTargets), more),
  (random, name, more) => hardlink(name, random.pick(linkTargets), more),
  (random, name, more) => character(name, random.below(512), random.below(512), more),
  (random, name, more) => block(name, 0, random.below(3), more),
  (_, name, more) => fifo(name, more),
  (_, name) => whiteout(Buffer.from(name).toString()),
  (_, name) => opaque(Buffer.from(name).toString()),
  (random, name, more) => {
    const format = random.pick(['gnu', '0.0', '0.1', '1.0'] as const);
    const extents = random.list(
      0,
      30,
      () => [random.below(1_000_000), random.bytes(random.below(20))] as const,
    );
    return sparse(name, random.pick([0, 100, 1_000_000, 2 ** 40]), extents, format, more);
  },
  (random) =>
    raw(
      paxHeader(
        random.list(0, 20, () => record(random)),
        random.pick(['x', 'g', 'X'] as const),
      ),
    ),
  (random, name) => raw(longHeader(random.pick(['L', 'K'] as const), name)),
  (random, name) =>
    raw(header({ name, type: String.fromCharCode(random.below(256)), size: random.below(3) })),
];

/** An archive of entries that may contradict each other, in any dialect. */
export function oddTar(random: Random, most = 12): Buffer {
  const dialect = random.pick(['pax', 'gnu', 'pax'] as const);
  const made = random.list(1, most, () => {
    const name = random.percent(96) ? random.pick(names) : oddText(random);
    const more = metadata(random);
    const item = random.pick(items)(random, name, more);
    try {
      return raw(item.encode(dialect));
    } catch {
      // This dialect cannot express the name.
      return file(name);
    }
  });
  return tarAs(dialect, ...made);
}

/** Offset and length of the fields of a header. */
const fields: readonly (readonly [offset: number, length: number])[] = [
  [0, 100],
  [100, 8],
  [108, 8],
  [116, 8],
  [124, 12],
  [136, 12],
  [148, 8],
  [156, 1],
  [157, 100],
  [257, 8],
  [265, 32],
  [297, 32],
  [329, 8],
  [337, 8],
  [345, 155],
  [386, 96],
  [482, 1],
  [483, 12],
];

/** Changes headers and other blocks of the archive, and mostly corrects the checksum. */
export function mutateTar(random: Random, original: Uint8Array): Buffer {
  let bytes: Buffer = Buffer.from(original);
  for (let n = 0; n <= random.below(3); n += 1) {
    const starts = headerStarts(bytes);
    if (starts.length === 0) break;
    const start = random.pick(starts);
    const head = bytes.subarray(start, start + 512);
    const [offset, length] = random.pick(fields);
    const kind = random.below(4);
    if (kind === 0) head.set(random.bytes(length), offset);
    else if (kind === 1) head.fill(random.pick([0, 0x20, 0x37, 0xff, 0x80]), offset, offset + length);
    else if (kind === 2) Buffer.from(oddText(random)).copy(head, offset, 0, length);
    else head[offset + random.below(length)]! ^= 1 << random.below(8);
    if (random.percent(88)) Buffer.from(checksumField(head)).copy(head, 148);
    const cut = random.below(20);
    const after = bytes.subarray(start);
    if (cut === 0) bytes = bytes.subarray(0, start + random.below(1024));
    else if (cut === 1) bytes = Buffer.concat([bytes.subarray(0, start), head, after]);
    else if (cut === 2) bytes = Buffer.concat([bytes.subarray(0, start), bytes.subarray(start + 512)]);
    else if (cut === 3) bytes = Buffer.concat([bytes.subarray(0, start), endMark, after]);
  }
  return random.percent(10) ? mutateBytes(random, bytes) : bytes;
}

function headerStarts(bytes: Buffer): number[] {
  const starts: number[] = [];
  for (let at = 0; at + 512 <= bytes.length; at += 512) {
    if (bytes.toString('latin1', at + 257, at + 262) === 'ustar') starts.push(at);
  }
  return starts;
}
