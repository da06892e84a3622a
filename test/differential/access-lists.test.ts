import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { flattened } from '../archive/harness.ts';
import { build, temporaryDirectory } from '../rootfs/harness.ts';
import { missing } from '../support/debian.ts';
import { printTree, treeDiff } from '../support/tree.ts';

/** bsdtar knows no ids above 2^31 - 1 in access lists. */
const make = `
set -e
mkdir -p etc plain setgid closed
printf 'root:x:0:0::/:\\ndaemon:x:1:1::/:\\ngames:x:5:60::/:\\n' > etc/passwd
printf 'root:x:0:\\ngames:x:60:\\nlp:x:7:\\ndaemon:x:1:\\n' > etc/group
for mode in 644 600 4755 2711 000; do
  echo $mode > f$mode; chmod $mode f$mode; cp -p f$mode g$mode
  setfacl -m u:1234:rw,g:games:r,u:daemon:rwx f$mode
  setfacl -m m::--x f$mode
  setfacl -m u:2147483647:rwx,g:games:-wx g$mode
done
setfacl -m d:u:games:rwx,d:g:7:r-x,d:o::--- plain; touch plain/inherits; mkdir plain/too
chgrp 7 setgid; chmod 2750 setgid; setfacl -m u:5:rwx,d:u::rwx,d:u:99:r-x setgid
setfacl -m u:1234:rwx closed; chmod 1500 closed
ln f644 second-name
ln -s f644 link
touch -h -d @1000000000 etc/* plain/* setgid closed f* g* second-name link plain etc .
`;

const writers: Readonly<Record<string, readonly string[]>> = {
  'GNU tar in numbers': ['tar', '--acls', '--numeric-owner', '-cf'],
  'GNU tar, all attributes too': ['tar', '--acls', '--xattrs', '--xattrs-include=*', '-cf'],
  bsdtar: ['bsdtar', '--acls', '--no-xattrs', '--format=pax', '-cf'],
  'bsdtar, restricted pax': ['bsdtar', '--acls', '--numeric-owner', '-cf'],
};
const readers: Readonly<Record<string, readonly string[]>> = {
  'GNU tar --acls': ['tar', '--acls', '--numeric-owner', '-xpf'],
  'GNU tar --xattrs': ['tar', '--xattrs', '--xattrs-include=*', '--numeric-owner', '-xpf'],
  bsdtar: ['bsdtar', '--acls', '--numeric-owner', '-xpf'],
};

const run = ([program, ...words]: readonly string[], ...more: readonly string[]): void =>
  void execFileSync(program!, [...words, ...more], { stdio: ['ignore', 'pipe', 'pipe'] });

describe('access lists that tar wrote', { skip: missing('root', 'setfacl', 'bsdtar') }, () => {
  for (const [writer, command] of Object.entries(writers)) {
    test(`come out as they went in: ${writer}`, async (t) => {
      const work = temporaryDirectory(t);
      const [from, to] = [join(work, 'from'), join(work, 'to')];
      for (const directory of [from, to]) mkdirSync(directory);
      execFileSync('bash', ['-c', make], { cwd: from });
      const archive = join(work, 'a.tar');
      run(command, archive, '-C', from, '.');
      const expected = printTree(from, { root: true });
      assert.ok(expected.match(/system\.posix_acl_access/g)!.length >= 12);
      const { counts } = build(to, [readFileSync(archive)], { mode: 'stage' });
      assert.equal(treeDiff(expected, printTree(to, { root: true })), '');
      assert.equal(counts.xattrs, 0);

      const flat = join(work, 'flat.tar');
      const bytes = await flattened([readFileSync(archive)]);
      writeFileSync(flat, bytes);
      assert.ok(bytes.equals(await flattened([bytes])), 'flattened once more it stays as it is');
      for (const [reader, words] of Object.entries(readers)) {
        const unpacked = join(work, reader.replaceAll(' ', ''));
        mkdirSync(unpacked);
        run(words, flat, '-C', unpacked);
        // bsdtar does not set the time of the directory that it extracts into.
        const root = reader !== 'bsdtar';
        assert.equal(treeDiff(printTree(from, { root }), printTree(unpacked, { root })), '', reader);
      }
    });
  }
});
