import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Digest } from '../../src/oci/digest.ts';
import { type Inspection, inspectionText } from '../../src/report/text.ts';
import { file, tar } from '../support/archive.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { runProgram, Scratch } from '../support/program.ts';

const mediaType = 'application/vnd.oci.image.layer.v1.tar+gzip';
const facts: Inspection = {
  reference: 'library/x:1',
  id: 'f'.repeat(64),
  platform: { os: 'linux', architecture: 'amd64' },
  platforms: [{ os: 'linux', architecture: 'amd64' }],
  layers: [
    { id: 'a'.repeat(64), mediaType, size: 1024, createdBy: '/bin/sh -c #(nop)  CMD ["sh"]', cached: false },
    { id: 'b'.repeat(64), mediaType, createdBy: `/bin/sh -c ${'x'.repeat(200)}\n\ty`, cached: false },
  ],
  config: {},
  bytes: { cache: 0, network: 1024 },
};

const layerLines = (text: string) => text.split('\n').filter((line) => /^ {2}[ab]{12}/.test(line));

test('an inspection has a line a layer, with what made it', () => {
  const text = inspectionText(facts);
  assert.match(text, /^To fetch: {4}1\.0 KiB$/m);
  const [first, second] = layerLines(text);
  assert.equal(first, `  ${'a'.repeat(12)}    1.0 KiB  CMD ["sh"]`);
  assert.equal(second, `  ${'b'.repeat(12)}          ?  /bin/sh -c ${'x'.repeat(89)}…`);
});

test('on a terminal no layer takes two lines', () => {
  for (const columns of [40, 80])
    for (const line of layerLines(inspectionText(facts, columns))) assert.ok(line.length <= columns, line);
});

test('cached layers are marked', () => {
  const [one, two] = facts.layers;
  const stored = { ...facts, layers: [{ ...one!, cached: true }, two!], bytes: { cache: 1024, network: 7 } };
  const text = inspectionText(stored);
  assert.match(text, /^To fetch: {4}7 B, 1\.0 KiB cached$/m);
  assert.match(text, /KiB {2}cached {2}CMD/);
});

test('inspection: a digest that does not fit beside its name has a line of its own', () => {
  const digest = `sha256:${'0123456789abcdef'.repeat(4)}` as Digest;
  const lines = (columns: number) => inspectionText({ ...facts, digest }, columns).split('\n');
  assert.ok(lines(84).includes(`Digest:      ${digest}`));
  assert.deepEqual(lines(80).slice(lines(80).indexOf('Digest:')).slice(0, 2), ['Digest:', `  ${digest}`]);
});

test('inspect -q prints the digest alone: of the image for this platform, by which it can be pulled', async () => {
  await using registry = await FakeRegistry.start();
  using scratch = new Scratch();
  const layers = [{ tar: tar(file('x', 'x')) }];
  const { images } = registry.pushIndex('lib/img', '1', [
    { layers, platform: { os: 'linux', architecture: 'amd64' } },
    { layers, platform: { os: 'linux', architecture: 'arm64' } },
  ]);
  const run = (...argv: readonly string[]) => runProgram([...argv, '--no-cache'], { cwd: scratch.path });
  const reference = registry.reference('lib/img', '1');
  for (const [index, architecture] of ['amd64', 'arm64'].entries()) {
    const platform = ['--platform', `linux/${architecture}`];
    const inspected = await run('inspect', '-q', reference, ...platform);
    const { digest } = images[index]!;
    assert.deepEqual(inspected, { exitCode: 0, stdout: `${digest}\n`, stderr: '' });
    const pulled = await run(registry.reference('lib/img', digest), '-q', '-d', architecture, ...platform);
    assert.deepEqual([pulled.exitCode, pulled.stdout], [0, `${architecture}\n`], pulled.stderr);
  }
});
