import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { findProgram, missing } from '../support/debian.ts';
import { noUserNamespace } from '../support/other-user.ts';
import { FakeRegistry } from '../support/fake-registry.ts';
import { programCommand, Scratch } from '../support/program.ts';
import { busyboxTree } from '../support/rootfs-trees.ts';

const root = new URL('../../', import.meta.url).pathname;
const needs = missing('root', 'busybox', 'lxc-execute', 'runc', 'systemd-nspawn', 'mke2fs', 'debugfs');

const thisPlatform = `linux/${process.arch === 'x64' ? 'amd64' : process.arch}`;

/** Title and commands of each recipe in docs/recipes.md. */
function recipes(): Map<string, string> {
  const text = readFileSync(`${root}docs/recipes.md`, 'utf8');
  const found = [...text.matchAll(/^## (.*)\n\n```sh\n([^]*?)```$/gm)];
  return new Map(found.map(([, title = '', commands = '']) => [title, commands]));
}

/** Makes an image with a shell as its command, so that a recipe's input runs inside. */
function alpine(scratch: Scratch): Buffer {
  const tree = scratch.join('tree');
  mkdirSync(tree);
  busyboxTree(tree);
  writeFileSync(`${tree}/etc/motd`, 'hello from inside\n');
  return execFileSync('tar', ['-c', '-C', tree, '.'], { maxBuffer: 64 << 20 });
}

/** False if the program runs, else the reason. */
function doesNotRun(program: string): string | false {
  const { status, stderr } = spawnSync(program, ['--version'], { encoding: 'utf8' });
  return status === 0 ? false : `${program} does not run here: ${stderr}`;
}

/** Commands of recipes that this machine needs in another form. */
function commandsFor(scratch: Scratch, registry: FakeRegistry): string {
  const bin = scratch.join('bin');
  mkdirSync(bin);
  const script = (name: string, line: string) =>
    writeFileSync(`${bin}/${name}`, `#!/bin/sh\n${line}\n`, { mode: 0o755 });
  const image = registry.reference('alpine');
  const named = `for word; do shift; [ "$word" != alpine ] || word=${image}; set -- "$@" "$word"; done`;
  script('dlrootfs', `${named}; exec ${programCommand.join(' ')} --cache-dir "$HOME/cache" "$@"`);
  script('sudo', 'exec "$@"');
  // The sandbox has no system bus, so no machined to register with and no unit to make. --image needs udev;
  // systemd-dissect reads disks by the same code.
  script(
    'systemd-nspawn',
    `case "$*" in *--image=*) exec systemd-dissect --copy-from "$(echo "$*" | sed 's/.*--image=\\([^ ]*\\).*/\\1/')" /etc/motd - ;; esac
exec ${findProgram('systemd-nspawn')} --quiet --pipe --register=no --keep-unit "$@"`,
  );
  // There is no bus, so the program that systemd-importd runs is called directly.
  script(
    'machinectl',
    'shift; exec /usr/lib/systemd/systemd-import --image-root=/var/lib/machines --class=machine tar "$@"',
  );
  const podman = `${findProgram('podman')} --root "$HOME/podman" --runroot "$HOME/podman-run" --storage-driver vfs`;
  // crun and runc need control groups that the sandbox does not have: a container is made, and the file read
  // from it.
  script(
    'podman',
    `[ "$1" = run ] || exec ${podman} "$@"
exec ${podman} export "$(${podman} create --network none "$3" true)" | tar -xO etc/motd`,
  );
  return bin;
}

/**
 * The programs that a recipe needs besides those of all recipes, and the command that reads its result if it
 * has none.
 */
const others: Readonly<Record<string, { readonly needs: readonly string[]; readonly reader?: string }>> = {
  WSL: { needs: ['bsdtar'], reader: 'bsdtar -xOf NAME.tar.gz etc/motd' },
  'Proxmox container template': {
    needs: ['zstd'],
    reader: 'mkdir t; tar xpf NAME.tar.zst --zstd --totals --numeric-owner -C t; cat t/etc/motd',
  },
  Incus: {
    needs: ['sqfstar', 'unsquashfs'],
    reader: 'tar -tzf metadata.tar.gz metadata.yaml; unsquashfs -cat NAME.squashfs etc/motd',
  },
  initramfs: { needs: ['bsdtar'], reader: 'zcat NAME.img | busybox cpio -id etc/motd; cat etc/motd' },
  'Partitioned disk by systemd-repart': {
    needs: ['systemd-repart', 'mkfs.erofs'],
    reader: 'systemd-dissect --copy-from NAME.raw /etc/motd -',
  },
  'systemd-nspawn --image': { needs: ['systemd-dissect'] },
  'System extension': {
    needs: ['mkfs.erofs', 'systemd-dissect'],
    reader: `systemd-dissect NAME.raw | grep '✓ sysext for system' && echo 'hello from inside'`,
  },
  'podman import': { needs: ['podman'] },
  'machinectl import-tar': { needs: ['machinectl'], reader: 'cat /var/lib/machines/NAME/etc/motd' },
  'lxc-create': { needs: ['lxc-create', 'xz'], reader: 'cat /var/lib/lxc/NAME/rootfs/etc/motd' },
  unsquashfs: { needs: ['unsquashfs', 'sqfstar'] },
};

async function run(
  commands: string,
  cwd: string,
  bin: string,
): Promise<{ status: number | null; output: string }> {
  const environment = { PATH: `${bin}:${process.env['PATH']}:/usr/sbin:/sbin`, HOME: cwd, USER: 'root' };
  const child = spawn('sh', ['-euc', commands], { cwd, env: environment });
  let output = '';
  child.stdout.on('data', (text: Buffer) => (output += text.toString()));
  child.stderr.on('data', (text: Buffer) => (output += text.toString()));
  child.stdin.end('cat /etc/motd\n');
  const status = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { status, output };
}

for (const [title, commands] of recipes()) {
  const other = others[title];
  const skip =
    (other ? missing('root', 'busybox', ...other.needs) : needs) ||
    (title.endsWith('systemd-repart') && doesNotRun('systemd-repart')) ||
    (commands.includes('unshare') && noUserNamespace);
  test(`recipe: ${title}`, { skip, timeout: 120_000 }, async () => {
    using scratch = new Scratch();
    await using registry = await FakeRegistry.start();
    registry.push('alpine', 'latest', {
      layers: [{ tar: alpine(scratch) }],
      config: { config: { Cmd: ['/bin/sh'] } },
    });
    const name = path.basename(scratch.path);
    symlinkSync(`${root}sample_configs`, scratch.join('sample_configs'));
    try {
      // Recipes for a phone run on this machine instead.
      const typed = `${commands}${other?.reader?.replaceAll('NAME', 'web') ?? ''}`
        .replaceAll(/\bweb\b/g, name)
        .replaceAll('linux/arm64', thisPlatform);
      const { status, output } = await run(typed, scratch.path, commandsFor(scratch, registry));
      assert.equal(status, 0, output);
      if (existsSync(scratch.join('rootfs.ext4'))) {
        const show = ['-R', 'cat /etc/motd', scratch.join('rootfs.ext4')];
        const shown = execFileSync(findProgram('debugfs')!, show, { encoding: 'utf8', stdio: 'pipe' });
        assert.equal(shown, 'hello from inside\n');
      } else {
        assert.match(output, /^hello from inside$/m);
      }
    } finally {
      for (const place of [
        `/var/lib/lxc/${name}`,
        `/var/lib/machines/${name}`,
        `/var/lib/machines/${name}.nspawn`,
        `/var/lib/machines/.${name}.aux`,
      ]) {
        rmSync(place, { recursive: true, force: true });
      }
    }
  });
}

test('recipe: what CI jobs run', { skip: needs, timeout: 120_000 }, async () => {
  using scratch = new Scratch();
  await using registry = await FakeRegistry.start();
  registry.push('alpine', 'latest', { layers: [{ tar: alpine(scratch) }] });
  const jobs = readFileSync(`${root}docs/recipes.md`, 'utf8').matchAll(/^```yaml\n([^]*?)^```$/gm);
  const typed = [...jobs].map(([, job = '']) =>
    [...job.matchAll(/^\s*- (?:run: )?((?:mkdir|(?:sudo )?(?:dlrootfs|chroot|cp)) .*)$/gm)].map((match) =>
      match[1]!.replaceAll('/var/cache/dlrootfs', scratch.join('var-cache')),
    ),
  );
  assert.deepEqual(
    typed.map((lines) => lines.length),
    [4, 2],
  );
  const nextJob = [`rm -rf rootfs ${scratch.join('var-cache')}`, ...typed[0]!];
  const bin = commandsFor(scratch, registry);
  const { status, output } = await run([...typed.flat(), ...nextJob].join('\n'), scratch.path, bin);
  assert.equal(status, 0, output);
  assert.equal(output.match(/^hello from inside$/gm)?.length, 3);
  assert.doesNotMatch(output, /notice: /);
  // The cache of GitHub's next job has all blobs; GitLab's is the same directory here.
  assert.equal(registry.log().filter((line) => line.includes('/blobs/')).length, 2);
});

test('there are recipes for each runtime', () => {
  const all = [...recipes()].flat().join('');
  for (const word of [
    'lxc-execute',
    'runc run',
    'systemd-nspawn -M',
    '--for qemu',
    'chroot',
    ...Object.keys(others),
  ])
    assert.ok(all.includes(word), word);
});
