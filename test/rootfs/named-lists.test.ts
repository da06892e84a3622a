import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { join } from 'node:path';
import { accessListText } from '../../src/tar/access-list.ts';
import { flattened } from '../archive/harness.ts';
import { dir, file, hardlink, tar, type Metadata } from '../support/archive.ts';
import { readXattrs } from '../support/xattrs.ts';
import { build, isRoot, temporaryDirectory } from './harness.ts';

const passwd = file('etc/passwd', 'root:x:0:0::/:\nalice:x:4242:1::/:\n');
const named = 'user::rw-,user:alice:rwx,group::r--,mask::rwx,other::---';
const numbers = 'user::rw-,user:4242:rwx,group::r--,mask::rwx,other::---';
const access = (text: string): Metadata => ({ mode: 0o640, pax: { 'SCHILY.acl.access': text } });

function lists(directory: string, name: string): string[] {
  return readXattrs(join(directory, name)).map(
    ([key, value]) => `${key.replace('system.posix_acl_', '')} ${accessListText(value)}`,
  );
}

describe('access lists as text', { skip: isRoot ? false : 'needs root' }, () => {
  test('in numbers are set; with names alone they are counted as not restored', (t) => {
    const directory = temporaryDirectory(t);
    const layers = [
      tar(
        passwd,
        file('f', '', access(numbers)),
        file('g', '', access(named)),
        hardlink('h', 'g'),
        dir('d', { pax: { 'SCHILY.acl.default': named } }),
        file('root', '', access('user::rw-,user:root:r--,group::r--,mask::r--,other::---')),
        file('both', '', access('user::rw-,user:alice:rwx:4242,group::r--,mask::rwx,other::---')),
      ),
    ];
    const { counts } = build(directory, layers, { mode: 'stage' });
    assert.equal(counts.xattrs, 3);
    assert.deepEqual(
      ['f', 'g', 'h', 'd', 'root', 'both'].map((name) => lists(directory, name)),
      [[`access ${numbers}`], [], [], [], [], [`access ${numbers}`]],
    );
  });

  test('with names stay in an archive as they are', async () => {
    const bytes = await flattened([tar(passwd, file('g', '', access(named)))]);
    assert.ok(bytes.includes(`SCHILY.acl.access=${named}\n`));
  });
});
