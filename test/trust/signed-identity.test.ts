import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Reference } from '../../src/oci/reference.ts';
import { DEFAULT_IDENTITY, fits, namedOf, parseSignedIdentity } from '../../src/trust/signed-identity.ts';

const digest = `sha256:${'0'.repeat(64)}`;
const remap = { type: 'remapIdentity', prefix: 'a.example/team', signedPrefix: 'b.example/t' };

/** The rules of containers-policy.json(5) for `signedIdentity`. */
const rows: readonly (readonly [
  identity: object | undefined,
  image: string,
  signed: string,
  fit: boolean,
])[] = [
  [undefined, 'a.example/x:1', 'a.example/x:1', true],
  [undefined, 'a.example/x:1', 'a.example/x:2', false],
  [undefined, 'a.example/x:1', 'a.example/x', false],
  [undefined, 'a.example/x:1', 'a.example/y:1', false],
  [undefined, 'a.example/x:1', 'docker://a.example/x:1', false],
  [undefined, `a.example/x@${digest}`, 'a.example/x:1', true],
  [undefined, `a.example/x@${digest}`, 'a.example/x', false],
  [undefined, `a.example/x@${digest}`, 'a.example/y:1', false],
  [{ type: 'matchExact' }, 'a.example/x:1', 'a.example/x:1', true],
  [{ type: 'matchExact' }, `a.example/x@${digest}`, 'a.example/x:1', false],
  [{ type: 'matchRepository' }, 'a.example/x:1', 'a.example/x:2', true],
  [{ type: 'matchRepository' }, 'a.example/x:1', 'a.example/x/y:1', false],
  [{ type: 'exactReference', dockerReference: 'b.example/y:3' }, 'a.example/x:1', 'b.example/y:3', true],
  [{ type: 'exactReference', dockerReference: 'b.example/y:3' }, 'a.example/x:1', 'a.example/x:1', false],
  [{ type: 'exactRepository', dockerRepository: 'b.example/y' }, 'a.example/x:1', 'b.example/y:9', true],
  [{ type: 'exactRepository', dockerRepository: 'b.example/y' }, 'a.example/x:1', 'a.example/x:1', false],
  [remap, 'a.example/team/app:1', 'b.example/t/app:1', true],
  [remap, 'a.example/team/app:1', 'a.example/team/app:1', false],
  [remap, 'a.example/team:1', 'b.example/t:1', true],
  [remap, 'a.example/teamwork/app:1', 'b.example/twork/app:1', false],
  [remap, 'a.example/teamwork/app:1', 'a.example/teamwork/app:1', true],
];

for (const [value, image, signed, fit] of rows) {
  const name = JSON.stringify(value) ?? 'the default';
  test(`${name}: ${image} ${fit ? 'may' : 'may not'} be signed as ${signed}`, () => {
    const identity = value ? parseSignedIdentity(value, 'it') : DEFAULT_IDENTITY;
    assert.equal(fits(identity, namedOf(Reference.parse(image)), signed), fit);
  });
}
