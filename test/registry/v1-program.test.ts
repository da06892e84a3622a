// Runs of the program against a registry of version 1.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { shellImage } from '../../scripts/demo/shell-image.ts';
import { endMark, file, symlink, tar } from '../support/archive.ts';
import type { Fault } from '../support/fake-fault.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import type { FakeV1Options } from '../support/fake-v1-registry.ts';
import { type ProgramResult, runProgram } from '../support/program.ts';
import { printTree, treeDiff } from '../support/tree.ts';
import { hubIs, image, withV1 } from '../support/v1-setting.ts';

const git = (directory: string, ...argv: readonly string[]): string =>
  execFileSync('git', ['-C', directory, ...argv], { encoding: 'utf8' });

const tree = (directory: string): string => printTree(directory, { without: ['json'] });

/** The original's lines. Those of layers that are fetched at the same time are sorted. */
function originalLines(name: string, ids: readonly string[], destination: string): string {
  const short = ids.map((id) => id.slice(0, 12));
  const pulling = [
    ...short.map((id) => `\tPulling fs layer ${id}`),
    ...short.map((id) => `\tDone ${id}`),
  ].toSorted();
  return [
    `Opening a session for ${name} ...`,
    `Image ID: ${ids.at(-1)}`,
    `Pulling ${ids.length} layers:`,
    ...pulling,
    'Downloading layers:',
    ...short.map((id) => `\t${id} ... done`),
    '',
    `Rootfs of ${name}:latest in ${destination}`,
    '',
  ].join('\n');
}

function linesOf({ stdout }: ProgramResult): string {
  const lines = stdout.split('\n');
  const end = lines.indexOf('Downloading layers:');
  return [...lines.slice(0, 3), ...lines.slice(3, end).toSorted(), ...lines.slice(end)].join('\n');
}

for (const mode of ['standalone', 'split'] as const) {
  test(`v1: the demo's image comes out as out of version 2, byte for byte (${mode})`, async () => {
    await using modern = await FakeRegistry.start();
    modern.push('demo/shell', 'latest', shellImage());
    await withV1({ mode }, async ({ registry, scratch }) => {
      const ids = registry.push('demo/shell', 'latest', shellImage()).map(({ id }) => id);
      const cwd = scratch.path;
      const old = await runProgram([registry.reference('demo/shell'), '-d', './old'], { cwd });
      assert.deepEqual([old.exitCode, old.stderr], [0, '']);
      assert.equal(linesOf(old), originalLines(`${registry.host}/demo/shell`, ids, './old'));
      assert.equal((await runProgram([modern.reference('demo/shell'), '-d', './new'], { cwd })).exitCode, 0);
      assert.equal(treeDiff(tree(scratch.join('new')), tree(scratch.join('old'))), '');
      assert.match(tree(scratch.join('old')), /etc\/motd/);
    });
  });
}

test('v1: -g makes the branches of the original, each with the files that version 2 has', async () => {
  await using modern = await FakeRegistry.start();
  modern.push('demo/shell', 'latest', shellImage());
  await withV1({ mode: 'split' }, async ({ registry, scratch, run, pull }) => {
    const stored = registry.push('demo/shell', 'latest', shellImage());
    const old = await pull('demo/shell', '-g');
    assert.equal(old.exitCode, 0, old.stderr);
    const ids = stored.map(({ id }) => id);
    assert.equal(linesOf(old), originalLines(`${registry.host}/demo/shell`, ids, scratch.join('out')));
    assert.equal((await run([modern.reference('demo/shell'), '-d', scratch.join('new'), '-g'])).exitCode, 0);
    const branches = (name: string) =>
      git(scratch.join(name), 'branch', '--format=%(refname:short)').trim().split('\n');
    assert.deepEqual(
      branches('out'),
      ids.map((id, n) => `layer${n}_${id}`),
    );
    assert.equal(git(scratch.join('out'), 'symbolic-ref', '--short', 'HEAD').trim(), branches('out').at(-1));
    const files = (name: string, branch: string) =>
      git(scratch.join(name), 'ls-tree', '-r', branch)
        .split('\n')
        .filter((line) => !/\t(?:json|layersize)$/.test(line));
    for (const [n, branch] of branches('out').entries()) {
      assert.deepEqual(files('out', branch), files('new', branches('new')[n]!));
      const show = (name: string) => git(scratch.join('out'), 'show', `${branch}:${name}`);
      assert.equal(show('layersize'), String(stored[n]!.blob.length));
      assert.equal((JSON.parse(show('json')) as { readonly id: string }).id, ids[n]);
      assert.match(
        git(scratch.join('out'), 'log', '-1', '--format=%s', branch),
        new RegExp(`adding layer ${n}`),
      );
    }
  });
});

test('v1: json as the original wrote it', async () => {
  await withV1({}, async ({ registry, scratch, pull }) => {
    const json = {
      container: undefined,
      container_config: { Cmd: ['/bin/sh', '-c', '#(nop) layer'], Volumes: {}, Env: [] },
      Size: 188_100_000,
      tiny: 0.000_01,
      small: 999_999,
      author: '<a@b.c> & Ünï\u2028',
      comment: 'a\tb\nc',
      config: null,
    };
    registry.push('team/app', 'latest', {
      layers: [image.layers[0]!],
      ids: ['27cf784147099545'],
      json: [json],
    });
    assert.equal((await pull('team/app')).exitCode, 0);
    const expected = String.raw`{
  "Size": 1.881e+08,
  "architecture": "amd64",
  "author": "\u003ca@b.c\u003e \u0026 Ünï\u2028",
  "comment": "a\u0009b\nc",
  "config": null,
  "container_config": {
    "Cmd": [
      "/bin/sh",
      "-c",
      "#(nop) layer"
    ],
    "Env": [],
    "Volumes": {}
  },
  "created": "2015-01-17T10:00:00.123456789Z",
  "docker_version": "1.4.1",
  "id": "27cf784147099545",
  "os": "linux",
  "small": 999999,
  "tiny": 1e-05
}`;
    assert.equal(readFileSync(scratch.join('out/json'), 'utf8'), expected);
  });
});

test('v1: a name at Docker Hub is written as the original wrote it, and a password is warned of', async () => {
  await withV1({ users: { bob: 'hunter2' } }, async ({ registry, scratch }) => {
    const ids = registry.push('library/ubuntu', 'latest', image).map(({ id }) => id);
    const environment = hubIs(registry.host, scratch);
    const result = await runProgram(['ubuntu', '-u', 'bob:hunter2'], { environment, cwd: scratch.path });
    assert.equal(result.exitCode, 0, result.stderr);
    const warning = "WARNING: don't forget to remove your docker hub credentials from your history !!\n";
    assert.equal(linesOf(result), originalLines('library/ubuntu', ids, './rootfs') + warning);
    assert.doesNotMatch(result.stdout + result.stderr, /hunter2/);
    assert.ok(registry.requests.some(({ headers }) => headers.authorization?.startsWith('Basic ')));
  });
});

for (const program of ['bzip2', 'xz', undefined] as const) {
  test(`v1: layers ${program ? `packed by ${program}` : 'that are not packed'}`, async (t) => {
    const packed: Uint8Array[] = [];
    for (const layer of image.layers) {
      const { stdout, error } = program
        ? spawnSync(program, ['-c'], { input: layer.tar })
        : { stdout: layer.tar, error: undefined };
      if (error) return t.skip(`needs ${program}`);
      packed.push(stdout);
    }
    return withV1({}, async ({ registry, scratch, run, pull }) => {
      registry.push('team/app', 'latest', { layers: packed });
      registry.push('team/gzip', 'latest', image);
      const result = await pull('team/app');
      assert.deepEqual([result.exitCode, result.stderr], [0, '']);
      assert.equal((await run([registry.reference('team/gzip'), '-d', scratch.join('gzip')])).exitCode, 0);
      assert.equal(treeDiff(tree(scratch.join('gzip')), tree(scratch.join('out'))), '');
      assert.match(tree(scratch.join('out')), /usr\/bin\/tool/);
    });
  });
}

for (const [what, bytes] of [
  ['two blocks of zeros', endMark],
  ['no bytes at all', Buffer.alloc(0)],
] as const) {
  test(`v1: a layer of ${what} is empty`, async () => {
    await withV1({}, async ({ registry, scratch, pull }) => {
      registry.push('team/app', 'latest', { layers: [image.layers[0]!.tar, bytes] });
      const result = await pull('team/app', '-g');
      assert.deepEqual([result.exitCode, result.stderr], [0, '']);
      assert.deepEqual(readdirSync(scratch.join('out')).toSorted(), ['.git', 'etc', 'json', 'layersize']);
      assert.equal(readFileSync(scratch.join('out/layersize'), 'utf8'), String(bytes.length));
    });
  });
}

test('v1: layers without a checksum are said to be unverified, once', async () => {
  await withV1({ checksums: 'none' }, async ({ registry, pull }) => {
    registry.push('team/app', 'latest', image);
    const { exitCode, stderr } = await pull('team/app');
    assert.equal(exitCode, 0);
    assert.equal(
      stderr,
      'notice: 2 of 2 layers cannot be verified: the registry has no checksums for them\n',
    );
  });
});

test('v1: layers are not kept for another run, which has no digest to find them by', async () => {
  await withV1({}, async ({ registry, scratch, pull }) => {
    registry.push('team/app', 'latest', image);
    const cache = scratch.join('cache');
    assert.equal((await pull('team/app', '--cache-dir', cache)).exitCode, 0);
    const kept = existsSync(cache) ? readdirSync(cache, { recursive: true, encoding: 'utf8' }) : [];
    assert.deepEqual(
      kept.filter((name) => /[0-9a-f]{64}/.test(name)),
      [],
    );
  });
});

test('v1: a tar, tags, inspect, and --registry-version', async () => {
  await withV1({}, async ({ registry, scratch, run, pull }) => {
    registry.push('team/app', '1.0', image);
    registry.push('team/app', 'latest', image);
    const reference = registry.reference('team/app');
    const archive = scratch.join('out.tar');
    const packed = await run([reference, '-o', archive]);
    assert.equal(packed.exitCode, 0, packed.stderr);
    assert.match(execFileSync('tar', ['-tf', archive], { encoding: 'utf8' }), /usr\/bin\/tool/);
    assert.equal((await run(['tags', `${registry.host}/team/app`])).stdout, '1.0\nlatest\n');
    const inspected = await run(['inspect', reference]);
    assert.equal(inspected.exitCode, 0, inspected.stderr);
    const digest = await run(['inspect', '-q', reference]);
    assert.deepEqual([digest.exitCode, digest.stdout], [2, '']);
    assert.match(
      digest.stderr,
      /^error: \S+ has no digest: its registry or archive has no manifests\nhint: leave out -q, /m,
    );
    const forced = await pull('team/app', '--registry-version', '2');
    assert.equal(forced.exitCode, 5);
    assert.match(forced.stderr, /does not speak version 2 of the registry protocol/);
    assert.equal((await pull('team/app', '--registry-version', '1')).exitCode, 0);
  });
});

interface Row {
  readonly what: string;
  readonly options?: FakeV1Options;
  readonly faults?: readonly Fault[];
  readonly repository?: string;
  readonly exitCode: number;
  readonly message: RegExp;
  /** Pattern of standard output. */
  readonly stdout?: RegExp;
}

const ALWAYS = 99;
const split = { mode: 'split' } as const;
const onlySession = /^Opening a session for .* \.\.\.\n$/;
const id = '[0-9a-f]{64}';

const rows: readonly Row[] = [
  {
    what: 'bad name',
    repository: 'Team/app',
    exitCode: 2,
    message: /lower-?case/,
    stdout: /^$/,
  },
  {
    what: 'no registry',
    faults: [{ path: /_ping/, status: 404, times: ALWAYS }],
    exitCode: 5,
    message: /is not a registry/,
  },
  {
    what: 'ping reset',
    faults: [{ path: /index/, before: 'reset', times: ALWAYS }],
    exitCode: 5,
    message: /the connection to .* broke/,
  },
  {
    what: 'index: HTTP code 404',
    repository: 'team/other',
    exitCode: 3,
    message: /team\/other does not exist \(.* 404: images not found\)/,
  },
  {
    what: 'index: 401',
    options: { private: /./, users: {} },
    exitCode: 4,
    message: /used no credentials/,
  },
  {
    what: 'index: 500',
    faults: [{ path: /images$/, status: 500, times: ALWAYS }],
    exitCode: 5,
    message: /answered 500/,
  },
  {
    what: 'index: no JSON',
    faults: [{ path: /images$/, body: 'nonsense', times: ALWAYS }],
    exitCode: 6,
    message: /the list of images of team\/app is not valid JSON/,
  },
  {
    what: 'index: unreachable',
    faults: [{ path: /images$/, before: 'reset', times: ALWAYS }],
    exitCode: 5,
    message: /the connection to .* broke/,
  },
  {
    what: 'tags: 404',
    faults: [{ path: /tags$/, status: 404, body: '{"error":"Repository not found"}', times: ALWAYS }],
    exitCode: 3,
    message: /team\/app does not exist \(.* 404: Repository not found\)/,
  },
  {
    what: 'tags: no registry can be reached',
    options: { mode: 'split', registries: 2 },
    faults: [{ path: /registry\d/, before: 'reset', times: ALWAYS }],
    exitCode: 5,
    message: /cannot reach any of the 2 registries of the index/,
  },
  {
    what: 'tags: an array',
    faults: [{ path: /tags$/, body: '[]', times: ALWAYS }],
    exitCode: 6,
    message: /the list of tags of .* is not a JSON object/,
  },
  {
    what: 'ancestry: 404',
    faults: [{ path: /ancestry/, status: 404, body: '{"error":"Image not found"}', times: ALWAYS }],
    exitCode: 3,
    message: new RegExp(`the ancestry of image ${id} does not exist \\(.* 404: Image not found\\)`),
  },
  {
    what: 'ancestry: 401',
    options: split,
    faults: [{ path: /ancestry/, status: 401, times: ALWAYS }],
    exitCode: 4,
    message: /cannot read the ancestry of image /,
  },
  {
    what: 'ancestry: 500',
    faults: [{ path: /ancestry/, status: 500, times: ALWAYS }],
    exitCode: 5,
    message: /answered 500/,
  },
  {
    what: 'ancestry: empty (defect 13)',
    faults: [{ path: /ancestry/, body: '[]', times: ALWAYS }],
    exitCode: 6,
    message: /is empty: an image has one layer at least/,
  },
  {
    what: 'tag unknown (defect 1)',
    repository: 'team/app:9.9',
    exitCode: 3,
    message: /\/team\/app has no tag 9\.9\nhint: choose one of its tags: latest/,
  },
  {
    what: 'layer JSON: 404',
    faults: [{ path: /json/, status: 404, times: ALWAYS }],
    exitCode: 3,
    message: new RegExp(`the JSON of image ${id} does not exist`),
  },
  {
    what: 'layer JSON: nonsense',
    faults: [{ path: /json/, body: '{', times: ALWAYS }],
    exitCode: 6,
    message: new RegExp(`the JSON of image ${id} is not valid JSON`),
  },
  {
    what: 'layer JSON: being uploaded',
    faults: [
      { path: /json/, status: 400, body: '{"error":"Image is being uploaded, retry later"}', times: ALWAYS },
    ],
    exitCode: 5,
    message: /answered 400: Image is being uploaded, retry later/,
  },
  {
    what: 'layer data: 404',
    faults: [{ path: /layer$/, status: 404, times: ALWAYS }],
    exitCode: 3,
    message: new RegExp(`the layer ${id} of .* does not exist`),
    stdout: /Pulling 2 layers/,
  },
  {
    what: 'layer data: 500',
    faults: [{ path: /layer$/, status: 500, body: '', times: ALWAYS }],
    exitCode: 5,
    message: /answered 500/,
    stdout: /Pulling 2 layers/,
  },
  {
    what: 'layer data: wrong',
    faults: [{ path: /layer$/, corruptAt: 20, times: ALWAYS }],
    exitCode: 6,
    message: /layer \d of 2 .*digest/,
    stdout: /Pulling 2 layers/,
  },
  {
    what: 'quota',
    faults: [{ path: /images$/, status: 429, times: ALWAYS }],
    exitCode: 8,
    message: /answered 429.*; the rate limit is reached/,
  },
];

for (const row of rows) {
  test(`v1: error row: ${row.what}`, async () => {
    await withV1({ ...row.options, faults: row.faults ?? [] }, async ({ registry, scratch, pull }) => {
      registry.push('team/app', 'latest', image);
      const { exitCode, stdout, stderr } = await pull(row.repository ?? 'team/app');
      assert.equal(exitCode, row.exitCode, stderr);
      assert.match(stderr, row.message);
      assert.match(stderr, /^(?:notice: .*\n)*error: .*\n(?:hint: .*\n)?$/);
      assert.match(stdout, row.stdout ?? onlySession);
      // Defect 1 of the original: it requested an image without an id.
      assert.deepEqual(registry.log(/images\/\//), []);
      assert.deepEqual(readdirSync(scratch.path), []);
    });
  });
}

test('v1: error row: a layer that is no tar', async () => {
  await withV1({}, async ({ registry, scratch, pull }) => {
    registry.push('team/app', 'latest', { layers: [image.layers[0]!.tar, Buffer.alloc(2048, 'x')] });
    const { exitCode, stderr } = await pull('team/app');
    assert.equal(exitCode, 6);
    assert.match(stderr, /^error: layer [0-9a-f]{12}/);
    assert.deepEqual(readdirSync(scratch.path), []);
  });
});

test('v1: error row: the destination', async () => {
  await withV1({}, async ({ registry, scratch, pull }) => {
    registry.push('team/app', 'latest', image);
    writeFileSync(scratch.join('out'), '');
    const { exitCode, stderr } = await pull('team/app');
    assert.equal(exitCode, 7);
    assert.match(stderr, /^error: .*out is not a directory/);
  });
});

test('v1: error row: git is missing', async () => {
  await withV1({}, async ({ registry, scratch, run }) => {
    registry.push('team/app', 'latest', image);
    const argv = [registry.reference('team/app'), '-d', scratch.join('out'), '-g'];
    const { exitCode, stderr } = await run(argv, { PATH: scratch.path });
    assert.equal(exitCode, 7);
    assert.match(stderr, /^error: .*git/);
    assert.equal(existsSync(scratch.join('out')), false);
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
      registry.fault({ path: new RegExp(`registry${dead} .*images/`), status: 500, times: ALWAYS });
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
    assert.equal(second.exitCode, 7);
    assert.match(second.stderr, /^error: cannot unpack into .*out: it is not empty$/m);
    registry.fault({ path: /layer$/, skip: 1, status: 404, times: ALWAYS });
    assert.equal((await run([registry.reference('team/app'), '-d', scratch.join('other')])).exitCode, 3);
    assert.deepEqual(readdirSync(scratch.path), ['out']);
  });
});

test('v1: defect 7: a second run with -g into the same directory', async () => {
  await withV1({}, async ({ registry, pull }) => {
    registry.push('team/app', 'latest', image);
    assert.equal((await pull('team/app', '-g')).exitCode, 0);
    const { exitCode, stderr } = await pull('team/app', '-g');
    assert.equal(exitCode, 7, stderr);
    assert.match(stderr, /^error: cannot unpack into .*out: it is not empty\nhint: .*--replace/m);
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
