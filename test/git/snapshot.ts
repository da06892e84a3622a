import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { lstatSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';

/** A rootfs as lines, one a path: type, mode, owner, time, content, device, the first name of a hard link, attributes. `.git` aside. */
export function snapshot(root: string): string[] {
  const first = new Map<bigint, string>();
  const attributes = readAttributes(root);
  const lines: string[] = [];
  const visit = (path: string): void => {
    const place = Buffer.concat([Buffer.from(`${root}/`), Buffer.from(path, 'latin1')]);
    const stat = lstatSync(place, { bigint: true });
    const mode = Number(stat.mode).toString(8);
    const what = stat.isFile()
      ? `${stat.size} ${createHash('sha1').update(readFileSync(place)).digest('hex')}`
      : stat.isSymbolicLink()
        ? `-> ${readlinkSync(place, { encoding: 'latin1' })}`
        : stat.isCharacterDevice()
          ? `device ${stat.rdev}`
          : '';
    const link = stat.isDirectory() ? undefined : first.get(stat.ino);
    if (link === undefined) first.set(stat.ino, path);
    const time = `${stat.mtimeNs / 1_000_000_000n}.${String(stat.mtimeNs % 1_000_000_000n).padStart(9, '0')}`;
    lines.push(
      [
        JSON.stringify(path),
        mode,
        `${stat.uid}:${stat.gid}`,
        time,
        what,
        link && `= ${link}`,
        attributes.get(path),
      ]
        .filter((part) => part !== undefined && part !== '')
        .join(' '),
    );
    if (!stat.isDirectory()) return;
    const names = readdirSync(place, { encoding: 'buffer' }).map((name) => name.toString('latin1'));
    for (const name of names.toSorted()) {
      const below = path === '' ? name : `${path}/${name}`;
      if (below !== '.git') visit(below);
    }
  };
  visit('');
  return lines;
}

function readAttributes(root: string): Map<string, string> {
  const listing = execFileSync('getfattr', ['-R', '-P', '-h', '-d', '-m', '-', '-e', 'hex', '.'], {
    cwd: root,
    encoding: 'latin1',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const found = new Map<string, string>();
  for (const block of listing.split('\n\n')) {
    const [title, ...values] = block.trim().split('\n');
    if (!title?.startsWith('# file: ')) continue;
    found.set(title.slice('# file: '.length), values.toSorted().join(' '));
  }
  return found;
}
