import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import { constants } from 'node:os';
import { test } from 'node:test';
import { osError, reasonOf } from '../../src/sys/os-error.ts';

const failing: readonly (readonly [call: () => Promise<unknown>, reason: string])[] = [
  [() => fs.mkdir('/dev/null/x'), 'cannot make /dev/null/x: not a directory (ENOTDIR)'],
  [() => fs.open('/missing\n'), 'cannot open /missing\\x0a: no such file or directory (ENOENT)'],
  [() => fs.readdir('/dev/null'), 'cannot read /dev/null: not a directory (ENOTDIR)'],
  [() => fs.rename('/missing', '/x'), 'cannot rename /missing: no such file or directory (ENOENT)'],
  [() => fs.rm('/missing'), 'cannot read /missing: no such file or directory (ENOENT)'],
  [() => fs.rmdir('/proc'), 'cannot remove /proc: resource busy or locked (EBUSY)'],
];

test('what Node says of a failed call, in words of our own', async () => {
  for (const [call, reason] of failing) {
    await call().then(
      () => assert.fail(reason),
      (error: unknown) => assert.equal(reasonOf(error), reason),
    );
  }
});

test('the damage that a file system reports has words', () => {
  for (const errno of [constants.errno.EBADMSG, 117])
    assert.match(osError(errno).text, /^the file system is corrupt \(E(BADMSG|UCLEAN)\)$/);
});

test('only a full or failing disk has a hint about another disk', () => {
  const elsewhere = 'choose another directory with -d';
  const { EACCES, ENOSPC, EIO } = constants.errno;
  assert.equal(osError(EACCES).hint(elsewhere), `${elsewhere}, or run as root`);
  assert.equal(osError(ENOSPC).hint(elsewhere), `free some space, or ${elsewhere}, on another disk`);
  assert.match(osError(EIO).hint(elsewhere)!, /\(dmesg\), or choose .* on another disk$/);
  assert.equal(osError(ENOSPC).hint(undefined), 'free some space');
});

test('every errno has a name and words, and no message of Node’s goes through', () => {
  for (const errno of Object.values(constants.errno)) {
    const { code, text } = osError(errno);
    assert.match(code, /^E[A-Z0-9]+$/);
    assert.ok(text === code || text.endsWith(` (${code})`), text);
    const error = Object.assign(new Error(`${code}: some words, mkdir '/x'`), {
      errno: -errno,
      code,
      syscall: 'mkdir',
      path: '/x',
    });
    assert.equal(reasonOf(error), `cannot make /x: ${text}`);
  }
});
