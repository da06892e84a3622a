import assert from 'node:assert/strict';
import { test } from 'node:test';
import { notRestoredText, nothingLost } from '../../src/rootfs/not-restored.ts';

test('what could not be restored is said in one line', () => {
  const none = nothingLost();
  assert.equal(notRestoredText(none, false), undefined);
  assert.equal(
    notRestoredText({ ...none, devices: 3, owners: 42, capabilities: 1 }, false),
    '3 devices, 42 owners, 1 capability not restored: run as root for the image as it is, or with --userns for all but devices',
  );
  assert.equal(
    notRestoredText(
      { ...none, owners: 1, setuid: 2, xattrs: 1, times: 2, modes: 3, collisions: 1, ignored: 1 },
      true,
    ),
    '1 owner, 2 setuid bits, 1 extended attribute, 2 exact times, 3 modes, 1 name that differs from another only in case, ' +
      '1 entry for the root that is no directory not restored',
  );
  assert.equal(notRestoredText({ ...none, times: 1 }, false), '1 exact time not restored');
});
