// What the one binary writes for each runtime starts there as it is.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { missing } from '../support/debian.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { difficultTexts, runtimeProgram, startContainer } from '../support/machine.ts';
import { programCommand, runProgram, Scratch } from '../support/program.ts';
import { busyboxTree, probeScript, readProbe } from '../support/rootfs-trees.ts';

const built = programCommand.length === 1 ? false : 'needs DLROOTFS_BINARY: make test';

function probeImage(scratch: Scratch) {
  const tree = scratch.join('tree');
  mkdirSync(tree);
  busyboxTree(tree);
  writeFileSync(`${tree}/probe`, probeScript, { mode: 0o755 });
  return {
    layers: [{ tar: execFileSync('tar', ['-c', '-C', tree, '.'], { maxBuffer: 64 << 20 }) }],
    config: {
      config: {
        Entrypoint: ['/probe', ...difficultTexts],
        Env: ['PATH=/bin', ...difficultTexts.map((text, n) => `V${n}=${text}`)],
        WorkingDir: '/var',
      },
    },
  };
}

for (const runtime of ['runc', 'lxc', 'nspawn'] as const) {
  for (const git of [false, true]) {
    const skip = built || missing('root', 'busybox', 'git', 'tar', runtimeProgram[runtime]);
    const name = `binary: --for ${runtime}${git ? ' -g' : ''} writes a container that starts`;
    test(name, { skip }, async () => {
      using scratch = new Scratch();
      chmodSync(scratch.path, 0o755);
      await using registry = await FakeRegistry.start();
      registry.push('lib/img', '1', probeImage(scratch));
      const rootfs = scratch.join('box/rootfs');
      mkdirSync(scratch.join('box'));
      const argv = [registry.reference('lib/img', '1'), '--no-cache', '-d', rootfs, '--for', runtime];
      const pulled = await runProgram(git ? [...argv, '-g'] : argv);
      assert.equal(pulled.exitCode, 0, pulled.stderr);
      const command = /start it with: (.*)/.exec(pulled.stderr)?.[1];
      const { status, output } = startContainer(command ?? 'false');
      assert.equal(status, 42, `${pulled.stderr}\n${output}`);
      const probe = readProbe(output);
      assert.deepEqual(probe.args, ['/probe', ...difficultTexts]);
      for (const [n, text] of difficultTexts.entries()) assert.equal(probe.environment.get(`V${n}`), text);
      assert.equal(probe.cwd, '/var');
    });
  }
}
