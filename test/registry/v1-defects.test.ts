// The original's defects (protocols.md, 3.7) do not come back.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { file, symlink, tar } from '../support/archive.ts';
import { hubIs, image, withV1 } from '../support/v1-setting.ts';

const always = 99;

test('v1: defect 1: an unknown tag prints no empty image id and asks for no empty image', async () => {
  await withV1({}, async ({ registry, pull }) => {
    registry.push('team/app', 'latest', image);
    const { exitCode, stdout, stderr } = await pull('team/app:none');
    assert.equal(exitCode, 3);
    assert.match(stderr, /has no tag none/);
    assert.doesNotMatch(stdout, /Image ID/);
    assert.deepEqual(registry.log(/images\/\//), []);
  });
});

test('v1: defect 2: private registries with a port, with a name space and without', async () => {
  await withV1({}, async ({ registry, scratch, run }) => {
    registry.push('team/app', '2', image);
    registry.push('busybox', 'latest', image);
    assert.equal((await run([registry.reference('team/app', '2'), '-d', scratch.join('a')])).exitCode, 0);
    assert.equal((await run([`${registry.host}/busybox`, '-d', scratch.join('b')])).exitCode, 0);
    assert.deepEqual(readdirSync(scratch.path).toSorted(), ['a', 'b']);
  });
});

test('v1: defect 3: whiteouts are applied', async () => {
  await withV1({}, async ({ registry, scratch, pull }) => {
    registry.push('team/app', 'latest', image);
    assert.equal((await pull('team/app')).exitCode, 0);
    assert.deepEqual(readdirSync(scratch.join('out/etc')), ['motd']);
  });
});

test('v1: defect 4: nothing is written outside, neither by links nor by json', async () => {
  await withV1({}, async ({ registry, scratch, pull }) => {
    mkdirSync(scratch.join('outside'));
    writeFileSync(scratch.join('victim'), 'untouched');
    const attack = tar(
      symlink('link', scratch.join('outside')),
      file('link/evil', 'x'),
      symlink('json', scratch.join('victim')),
    );
    registry.push('team/app', 'latest', { layers: [attack] });
    await pull('team/app');
    assert.deepEqual(readdirSync(scratch.join('outside')), []);
    assert.equal(readFileSync(scratch.join('victim'), 'utf8'), 'untouched');
  });
});

for (const dead of [0, 1]) {
  test(`v1: defect 6: of two registries the one that works is asked, each layer once (${dead} is dead)`, async () => {
    await withV1({ mode: 'split', registries: 2 }, async ({ registry, pull }) => {
      registry.push('team/app', 'latest', image);
      registry.fault({ path: new RegExp(`registry${dead} .*images/`), status: 500, times: always });
      const { exitCode, stderr } = await pull('team/app');
      assert.equal(exitCode, 0, stderr);
      assert.deepEqual(
        registry.log(/layer$/).map((line) => line.split(' ')[0]),
        [`registry${1 - dead}`, `registry${1 - dead}`],
      );
    });
  });
}

test('v1: defects 7 and 10: a second run says what it does, a failed one leaves nothing', async () => {
  await withV1({}, async ({ registry, scratch, run, pull }) => {
    registry.push('team/app', 'latest', image);
    assert.equal((await pull('team/app')).exitCode, 0);
    const second = await pull('team/app');
    assert.equal(second.exitCode, 0);
    assert.match(second.stderr, /notice: .*out holds this image already/);
    registry.fault({ path: /layer$/, skip: 1, status: 404, times: always });
    assert.equal((await run([registry.reference('team/app'), '-d', scratch.join('other')])).exitCode, 3);
    assert.deepEqual(readdirSync(scratch.path), ['out']);
  });
});

test('v1: defect 7: a second run with -g into the same directory', async () => {
  await withV1({}, async ({ registry, pull }) => {
    registry.push('team/app', 'latest', image);
    assert.equal((await pull('team/app', '-g')).exitCode, 0);
    const { exitCode, stderr } = await pull('team/app', '-g');
    assert.ok(exitCode === 0 || exitCode === 7, stderr);
    assert.doesNotMatch(stderr, /exit status 128|bug/);
  });
});

test('v1: defect 8: no more connections than jobs are open, and a broken one is resumed', async () => {
  await withV1({}, async ({ registry, scratch, pull }) => {
    const layers = Array.from({ length: 12 }, (_, n) => tar(file(`f${n}`, randomBytes(50_000))));
    registry.push('team/app', 'latest', { layers });
    registry.fault({ path: /layer$/, cutAfter: 40_000, times: 12 });
    const { exitCode, stderr } = await pull('team/app', '-j', '3', '--retry', '5');
    assert.equal(exitCode, 0, stderr);
    assert.equal(readdirSync(scratch.join('out')).length, 13);
  });
});

test('v1: defect 9: an image’s own json stays, with a notice', async () => {
  await withV1({}, async ({ registry, scratch, pull }) => {
    registry.push('team/app', 'latest', { layers: [tar(file('json', 'mine'))] });
    const { exitCode, stderr } = await pull('team/app');
    assert.equal(exitCode, 0);
    assert.equal(readFileSync(scratch.join('out/json'), 'utf8'), 'mine');
    assert.match(stderr, /notice: .*json/);
  });
});

test(
  'v1: defect 13: an ancestry of no entries is an error, not a wait without end',
  { timeout: 20_000 },
  async () => {
    await withV1(
      { faults: [{ path: /ancestry/, body: '[]', times: always }] },
      async ({ registry, pull }) => {
        registry.push('team/app', 'latest', image);
        const { exitCode, stdout } = await pull('team/app');
        assert.equal(exitCode, 6);
        assert.doesNotMatch(stdout, /Pulling/);
      },
    );
  },
);

test('v1: defect 14: docker.io/library/x and index.docker.io/x are names at Docker Hub', async () => {
  await withV1({}, async ({ registry, scratch, run }) => {
    registry.push('library/ubuntu', 'latest', image);
    const environment = hubIs(registry.host, scratch);
    for (const name of ['docker.io/library/ubuntu', 'index.docker.io/ubuntu']) {
      const { exitCode, stdout } = await run([name, '-d', scratch.join(`out-${name.length}`)], environment);
      assert.equal(exitCode, 0);
      assert.match(stdout, /^Opening a session for library\/ubuntu \.\.\.\n/);
    }
  });
});
