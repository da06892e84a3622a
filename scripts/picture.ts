// `npm run picture` makes docs/demo.svg, the picture in the README. It records dist/dlrootfs in a terminal,
// with an image of this machine's shell from a slow registry on loopback. It needs root, and no internet.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { FakeRegistry } from '../test/support/fake-registry.ts';
import { TerminalSession } from '../test/support/terminal-session.ts';
import { shellImage } from './demo/shell-image.ts';
import { film, type Frame } from './readme/film.ts';

const COLUMNS = 80;
const ROWS = 24;
const BYTES_PER_SECOND = 700_000;
const FRAME_MILLISECONDS = 150;
const prompt = '# ';
const commands = [
  'dlrootfs demo/shell',
  'ls rootfs',
  "chroot rootfs /bin/sh -c 'cat /etc/motd; id'",
] as const;

const root = new URL('..', import.meta.url).pathname;
const scratch = mkdtempSync(`${tmpdir()}/dlrootfs-picture-`);
process.once('exit', () => rmSync(scratch, { recursive: true, force: true }));
mkdirSync(`${scratch}/bin`);
symlinkSync(`${root}dist/dlrootfs`, `${scratch}/bin/dlrootfs`);

await using registry = await FakeRegistry.start({
  faults: [{ path: /\/blobs\//, skip: 1, times: 1000, rate: BYTES_PER_SECOND }],
});
registry.push('demo/shell', 'latest', shellImage());
const mirror = `[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "${registry.host}"\ninsecure = true\n`;
writeFileSync(`${scratch}/registries.conf`, mirror);

await using terminal = TerminalSession.start(
  `exec env PS1='${prompt}' HISTFILE= bash --noprofile --norc -i`,
  {
    columns: COLUMNS,
    rows: ROWS,
    cwd: scratch,
    environment: {
      HOME: scratch,
      PATH: `${scratch}/bin:${process.env['PATH']}:/usr/sbin`,
      CONTAINERS_REGISTRIES_CONF: `${scratch}/registries.conf`,
    },
  },
);

const frames: Frame[] = [];
const recorder = new AbortController();
const begin = performance.now();

async function record(): Promise<void> {
  while (!recorder.signal.aborted) {
    const lines = (await terminal.text()).split('\n').slice(-ROWS);
    if (lines.join('\n') !== frames.at(-1)?.lines.join('\n'))
      frames.push({ at: (performance.now() - begin) / 1000, lines });
    await sleep(FRAME_MILLISECONDS);
  }
}

const waits = (screen: string) => screen.endsWith(`\n${prompt.trimEnd()}`) || screen === prompt.trimEnd();
await terminal.until(waits);
const recording = record();
for (const command of commands) {
  await sleep(600);
  for (const letter of command) {
    terminal.type(letter);
    await sleep(45);
  }
  await sleep(300);
  terminal.type('\n');
  await sleep(300);
  await terminal.until(waits, 60_000);
}
await sleep(500);
recorder.abort();
await recording;
const title =
  'A terminal: dlrootfs turns an image into the directory rootfs, and chroot runs a command in it';
writeFileSync(`${root}docs/demo.svg`, film(frames, { columns: COLUMNS, rows: ROWS, title, rest: 5 }));
