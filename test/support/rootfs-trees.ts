import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  chmodSync,
  copyFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { findProgram } from './debian.ts';
import { HANG } from './hang.ts';

const applets =
  'base64 cat chmod echo env grep hostname id init kill ls mkdir mount poweroff pwd sed sh sleep stat touch tr wc'.split(
    ' ',
  );

/** Makes the smallest system that runs commands: busybox and its accounts. */
export function busyboxTree(directory: string): void {
  for (const name of [
    'bin',
    'dev',
    'etc',
    'home/app',
    'proc',
    'root',
    'run',
    'sbin',
    'sys',
    'tmp',
    'usr/bin',
    'var',
  ]) {
    mkdirSync(`${directory}/${name}`, { recursive: true });
  }
  chmodSync(`${directory}/tmp`, 0o1777);
  copyFileSync(findProgram('busybox')!, `${directory}/bin/busybox`);
  for (const name of applets) symlinkSync('busybox', `${directory}/bin/${name}`);
  writeFileSync(
    `${directory}/etc/passwd`,
    'root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n',
  );
  writeFileSync(`${directory}/etc/group`, 'root:x:0:\napp:x:1001:\nwheel:x:10:app\nvideo:x:44:app\n');
}

/** A directory that remains after the tests, for later runs. */
const KEPT = '/var/tmp/dlrootfs-test-debian';

/**
 * Returns an archive of a Debian (minbase and the named packages), made once per machine in half a minute.
 * Needs mmdebstrap, root and Debian's mirror.
 */
export function debianArchive(...packages: readonly string[]): string {
  const archive = `${[KEPT, 'minbase', ...packages].join('-')}.tar`;
  if (existsSync(archive)) return archive;
  const work = mkdtempSync(`${KEPT}-`);
  try {
    const include = packages.length > 0 ? [`--include=${packages.join(',')}`] : [];
    const suite = execFileSync('sh', ['-c', '. /etc/os-release; echo "$VERSION_CODENAME"'], {
      encoding: 'utf8',
    }).trim();
    execFileSync('mmdebstrap', ['--quiet', '--variant=minbase', ...include, suite, `${work}/tree.tar`], {
      stdio: ['ignore', 'ignore', 'inherit'],
      timeout: HANG,
    });
    renameSync(`${work}/tree.tar`, archive);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return archive;
}

/** Unpacks that Debian. */
export function debianTree(directory: string, ...packages: readonly string[]): void {
  mkdirSync(directory, { recursive: true });
  execFileSync('tar', [
    '--numeric-owner',
    '--xattrs',
    '--xattrs-include=*',
    '-xpf',
    debianArchive(...packages),
    '-C',
    directory,
  ]);
}

/**
 * A program for a rootfs that prints how it was started and exits with 42: `cmdline` and `environ` of the
 * kernel in base64, working directory, ids.
 */
export const probeScript = `#!/bin/sh
echo "cmdline $(base64 </proc/$$/cmdline | tr -d '\\n')"
echo "environ $(base64 </proc/$$/environ | tr -d '\\n')"
echo "cwd $(pwd)"
sed -n 's/^\\(Uid\\|Gid\\|Groups\\):/\\1/p' /proc/$$/status
exit 42
`;

export interface Probe {
  readonly args: readonly string[];
  readonly environment: ReadonlyMap<string, string>;
  readonly cwd: string;
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
}

/** Reads the probe's output, which may have other lines. */
export function readProbe(output: string): Probe {
  const field = (name: string) => new RegExp(`^${name}[ \\t](.*?)\\r?$`, 'm').exec(output)?.[1] ?? '';
  const strings = (name: string) => Buffer.from(field(name), 'base64').toString().split('\0').slice(0, -1);
  const numbers = (name: string) => (field(name).match(/\d+/g) ?? []).map(Number);
  return {
    // The kernel lists a script's interpreter first.
    args: strings('cmdline').slice(1),
    environment: new Map(
      strings('environ').map((entry) => [
        entry.slice(0, entry.indexOf('=')),
        entry.slice(entry.indexOf('=') + 1),
      ]),
    ),
    cwd: field('cwd'),
    uid: numbers('Uid')[1] ?? -1,
    gid: numbers('Gid')[1] ?? -1,
    groups: numbers('Groups'),
  };
}
