import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { exactArguments, osPath, pathBytes, pathText } from '../../src/sys/os-path.ts';

test('any bytes come back, and UTF-8 is text', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      assert.deepEqual(Buffer.from(bytes), pathBytes(pathText(bytes)));
    }),
    { numRuns: 2000 },
  );
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      assert.equal(pathText(Buffer.from(text)), text);
      assert.equal(osPath(text), text);
    }),
  );
  assert.equal(pathText(Buffer.from('a\u00e9/b', 'latin1')), 'a\udce9/b');
  assert.equal(pathText(Buffer.from('\u20ac').subarray(0, 2)), '\udce2\udc82');
});

test('arguments with all their bytes, or an error', (t) => {
  const directory = mkdtempSync(path.join(tmpdir(), 'dlrootfs-test-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const place = path.join(directory, 'cmdline');
  writeFileSync(place, Buffer.from('node\0cli.js\0img\0-d\0caf\u00e9\0', 'latin1'));
  const decoded = ['img', '-d', 'caf\ufffd'];
  assert.deepEqual(exactArguments(decoded, place), ['img', '-d', 'caf\udce9']);
  assert.deepEqual(exactArguments(['plain'], '/nonexistent'), ['plain']);
  const refused = { exitCode: 2, code: 'ARGUMENT_BYTES', message: /^cannot read the bytes of the argument / };
  assert.throws(() => exactArguments(decoded, '/nonexistent'), refused);
  assert.throws(() => exactArguments(['-d', 'other\ufffd'], place), refused);
  // This is U+FFFD itself.
  writeFileSync(place, 'node\0x\ufffd\0');
  assert.deepEqual(exactArguments(['x\ufffd'], place), ['x\ufffd']);
});
