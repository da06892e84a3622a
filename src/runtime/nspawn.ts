import type { Container } from './container.ts';
import { commented, isOneLine, configLines, type RuntimeConfig } from './config-text.ts';

/**
 * Makes the `.nspawn` file of a machine (systemd.nspawn(5)), as importctl does from an image's config. It has
 * only settings that work in a file beside the machine, where privileged ones do not. systemd splits words at
 * blanks, removes quotes as a shell does, and keeps a backslash. A line break has no notation, so a shell in
 * the container builds words with one.
 */
export function nspawnConfig(container: Container): RuntimeConfig {
  const notices: string[] = [];
  const { user, boots, workingDirectory, stopSignal, facts } = container;
  const args = boots ? container.args.slice(1) : container.args;
  const hasShell = facts.shell && !boots;
  const {
    variables,
    command,
    notices: lost,
  } = configLines({ ...container, args }, 'systemd-nspawn', hasShell, quoted);
  const name = /^[\w.][\w.-]*\$?$/.test(user.name ?? '') ? user.name : user.uid;
  const isRoot = user.uid === 0;
  if (!facts.usr) notices.push('systemd-nspawn does not start a rootfs without /usr: --prepare adds it');
  if (boots && !facts.osRelease)
    notices.push('systemd-nspawn does not boot a rootfs without /etc/os-release');
  if (!isRoot && !facts.getent) {
    notices.push(`systemd-nspawn will not start: it needs getent in the image to find user ${user.uid}`);
  }
  for (const path of container.hidden) {
    notices.push(
      'systemd-nspawn ignores Inaccessible= in a file beside the machine: ' +
        `add --inaccessible=${path} to its command line`,
    );
  }
  if (!isOneLine(workingDirectory))
    notices.push('systemd-nspawn cannot express the working directory of the image: it has a line break');
  notices.push(...lost);
  if (command === undefined)
    notices.push(
      'systemd-nspawn cannot express the command of the image, which has a line break: ' +
        'give a command to systemd-nspawn',
    );
  const lines = [
    '# systemd.nspawn(5). Made from the image; edit it as you like.',
    '[Exec]',
    `Boot=${boots ? 'yes' : 'no'}`,
    ...(command === undefined || command === '' ? [] : [`Parameters=${command}`]),
    ...variables.map(([key, value]) => `Environment=${quoted(`${key}=${value}`)}`),
    ...(isRoot || boots ? [] : [`User=${name}`]),
    ...(boots || !isOneLine(workingDirectory) || workingDirectory === '/'
      ? []
      : [`WorkingDirectory=${unbroken(workingDirectory)}`]),
    // systemd-nspawn knows the signal for an init.
    ...(boots ? [] : [`KillSignal=${stopSignal ?? 'SIGTERM'}`]),
    ...container.hidden.flatMap((path) => ['[Files]', `Inaccessible=${path}`]),
    ...container.ports.map((port) => `# The image exposes the port ${commented(port)}.`),
    ...container.volumes.map(
      (path) => `# The image has a volume at ${commented(path)}: its data is in the rootfs.`,
    ),
  ];
  return { text: `${lines.join('\n')}\n`, notices };
}

/** Appends a slash after a final backslash, which would join the next line; the directory stays the same. */
function unbroken(directory: string): string {
  return directory.endsWith('\\') ? `${directory}/` : directory;
}

function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}
