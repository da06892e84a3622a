import { UsageError, printable } from '../errors.ts';

/** Flags of crane, skopeo, docker, podman, buildah, umoci, oras, regctl and curl, and the hint for each. */
const FOREIGN_FLAGS: readonly (readonly [names: string, hint: string])[] = [
  [
    'insecure skip-tls-verify insecure-skip-tls-verify tls-no-verify no-tls-verify allow-insecure src-tls-verify k',
    'use --tls-verify=false, or --plain-http for a registry without TLS',
  ],
  ['http insecure-http use-http', 'use --plain-http'],
  [
    'output-dir outdir out-dir dest-dir dir directory rootfs target destination path-to-rootfs r C',
    'use -d DIR',
  ],
  ['file tarball archive', 'use -o FILE.tar'],
  [
    'f',
    'use -o FILE.tar for an archive, --replace for a DIR that holds something, --force for existing configurations',
  ],
  ['format', 'use -o with an ending, as FILE.tar, FILE.tar.zst or FILE.ext4; for JSON use --json'],
  ['disk disk-image ext4 squashfs erofs', 'use -o FILE.ext4, FILE.squashfs or FILE.erofs'],
  ['username login src-username src-creds credentials', 'use -u USER, which asks for the password'],
  ['password pass src-password', 'use -u USER with --password-stdin'],
  ['token bearer-token identity-token src-registry-token', 'use --registry-token TOKEN'],
  ['anonymous no-auth src-no-creds', 'use --no-creds'],
  ['registry-config auth-file config', 'use --authfile FILE'],
  [
    'arch os variant override-arch override-os override-variant src-platform',
    'use --platform OS/ARCH, as in --platform linux/arm64',
  ],
  ['tag t', 'write the tag behind the image, as in alpine:3.20'],
  ['digest', 'write the digest behind the image, as in alpine@sha256:…'],
  ['image name', 'write the image without a flag, as in dlrootfs alpine'],
  ['registry host server', 'write the registry before the image, as in registry.example.com/team/app'],
  [
    'cacert ca-cert cacerts certificate-authority tls-ca-cert src-cert-dir',
    'use --ca-file FILE or --cert-dir DIR',
  ],
  ['client-cert cert tls-cert', 'use --cert-file FILE with --key-file FILE'],
  ['client-key tls-key', 'use --key-file FILE with --cert-file FILE'],
  ['key', 'use --verify-key FILE for signatures of images, --key-file FILE with --cert-file FILE for TLS'],
  ['a la al', 'leave out a: ls lists all names, and -l the long form'],
  ['R recursive lR Rl', 'use dlrootfs IMAGE -o - | tar tv'],
  ['copy', 'use --add SRC:DEST'],
  ['chown owner', 'use --add-owner UID:GID'],
  ['chmod', 'change the mode of the file itself, by chmod: --add keeps it'],
  ['raw', 'use --json'],
  ['retries retry-times max-retries', 'use --retry N'],
  [
    'concurrency parallel parallelism image-parallel-copies max-concurrent-downloads threads workers',
    'use -j N',
  ],
  ['cache_path cache-path', 'use --cache-dir DIR'],
  ['silent no-progress no-tty', 'use -q, or --progress none for the lines without progress'],
  ['log-level trace', 'use -v'],
  ['all-tags list-tags list', 'use dlrootfs tags REPOSITORY'],
  ['proxy', 'set HTTPS_PROXY in the environment'],
  ['bundle', 'use -d BUNDLE/rootfs --for runc'],
  [
    'it ti rm detach entrypoint publish e env w workdir volume',
    'pull without it, then run chroot rootfs /bin/sh: dlrootfs starts no containers',
  ],
  [
    'p',
    'use --platform OS/ARCH for a platform, --password-stdin for a password; dlrootfs starts no containers',
  ],
  ['pull', 'use --replace, which takes the newest image'],
  ['extract untar unpack', 'leave it out: dlrootfs always unpacks'],
  ['dryrun dry', 'use --dry-run'],
  ['overwrite update refresh clean delete', 'use --replace'],
  ['uid-map gid-map uidmap gidmap', 'use --userns'],
];

/** Returns the meaning of a word in a table whose rows have words and their meaning; else undefined. */
export function lookUpWord<T>(
  table: readonly (readonly [words: string, meaning: T])[],
  word: string,
): T | undefined {
  return table.find(([words]) => words.split(' ').includes(word))?.[1];
}

/** Returns the hint for a flag of another tool; undefined if no tool has it. */
export function foreignFlag(name: string): string | undefined {
  return lookUpWord(FOREIGN_FLAGS, name);
}

const CACHE_WORDS: readonly (readonly [names: string, meant: string])[] = [
  ['ls images show', 'list'],
  ['clear clean purge empty', 'prune'],
  ['du usage info', 'size'],
];

/** Returns what `dlrootfs cache` calls a word of another tool; undefined if no tool has it. */
export function foreignCacheWord(word: string): string | undefined {
  return lookUpWord(CACHE_WORDS, word);
}

/** Translates another tool's `cp IMAGE:/PATH`; undefined for an image alone. */
function catOf(word: string): string | undefined {
  const [, image, path] = /^([^/].*?):(\/.*)$/.exec(word) ?? [];
  return image === undefined ? undefined : `dlrootfs cat ${image} ${path}`;
}

/** Translates another tool's `pull IMAGE TARGET` or `copy IMAGE TARGET` to a pull. */
function pullOf(image: string, target: string | undefined): string {
  const pull = `dlrootfs ${image}`;
  if (target === undefined) return pull;
  if (target === '-' || /\.tar(?:\.\w+)?$/.test(target))
    return `${pull} -o ${target.replace(/^[\w-]+:/, '')}`;
  return `${pull} -d ${target.includes(':') ? 'DIR' : target}`;
}

/** True for a name that begins with the address of a registry. */
function namesHost(image: string): boolean {
  return /^(?:docker:\/\/|(?:localhost|[^/.]+(?:\.[^/.]+)+|[^/:]+:\d+)(?::\d+)?\/)/.test(image);
}

function layoutOf(directory: string): string {
  return `oci:${directory.replace(/^oci:/, '')}`;
}

/** Makes the hint for a word that is a command of other tools; `rest` are the printable words after it. */
type CommandHint = (rest: readonly string[]) => string;

/** Accepts the branches of -g, whose layers count from 0: `layer1_…`, `layer1` or `1`. */
function checkoutHint(branch: string): string {
  const number = /^(?:layer)?(\d{1,4})(?:_|$)/.exec(branch)?.[1];
  const layers = number === undefined ? 'N' : String(Number(number) + 1);
  return `for the state after the first ${layers} layers write dlrootfs IMAGE --layers ${layers} -d DIR --replace`;
}

const COMMANDS: readonly (readonly [names: string, hint: CommandHint])[] = [
  [
    'pull copy cp extract get fetch download create import build-rootfs',
    ([image = 'IMAGE', target]) => `write ${catOf(image) ?? pullOf(image, target)}`,
  ],
  ['export save', ([image = 'IMAGE', target = 'FILE.tar']) => `write ${pullOf(image, target)}`],
  ['update refresh upgrade', ([image = 'IMAGE']) => `write dlrootfs ${image} --replace`],
  ['enter shell', ([directory = 'rootfs']) => `write chroot ${directory} /bin/sh`],
  ['delete remove', ([directory = 'rootfs']) => `write rm -rf ${directory}`],
  [
    'unpack',
    ([image = 'DIR:TAG', target]) => `write ${pullOf(namesHost(image) ? image : layoutOf(image), target)}`,
  ],
  [
    'run exec start',
    ([image = 'IMAGE']) =>
      `dlrootfs starts no containers: write dlrootfs ${image}, then chroot rootfs /bin/sh`,
  ],
  ['login logout auth', () => 'log in with docker, podman or skopeo, or use -u USER'],
  ['manifest config info show history', (rest) => `write dlrootfs inspect ${rest.at(-1) ?? 'IMAGE'}`],
  ['digest', (rest) => `write dlrootfs inspect -q ${rest.at(-1) ?? 'IMAGE'}`],
  ['list list-tags', (rest) => `write dlrootfs tags ${rest.at(-1) ?? 'REPOSITORY'}`],
  ['validate check', ([image = 'IMAGE']) => `write dlrootfs verify ${image} -d DIR`],
  ['checkout', ([branch = '']) => `${checkoutHint(branch)}; git checkout BRANCH restores what git holds`],
  [
    'search',
    ([word = 'WORD']) =>
      namesHost(word)
        ? `write dlrootfs tags ${word}; search for a name on the web page of the registry`
        : 'search on the web page of the registry, as ' +
          `https://hub.docker.com/search?q=${encodeURIComponent(word)}; dlrootfs tags REPOSITORY ` +
          'lists tags',
  ],
  ['man', () => 'write man dlrootfs, or dlrootfs --help --all'],
  ['catalog', () => 'ask the registry itself, as in curl https://REGISTRY/v2/_catalog'],
  ['images', () => 'write dlrootfs cache list'],
  ['rmi rm', ([image = 'IMAGE']) => `write dlrootfs cache rm ${image}; a rootfs is removed by rm -rf DIR`],
  ['ps', () => 'dlrootfs starts no containers: see those of the program that started them'],
  ['prune clean', () => 'write dlrootfs cache prune'],
  ['push commit build tag', () => 'use podman or buildah for that: dlrootfs only reads from registries'],
];

/** Returns the error for words that begin with a command of other tools; undefined for other words. */
export function foreignCommand([first = '', ...rest]: readonly string[]): UsageError | undefined {
  // `docker image inspect X` is `docker inspect X`.
  if (first === 'image' && rest.length > 1)
    return (
      foreignCommand(rest) ??
      new UsageError('dlrootfs has no command image', {
        hint: `write dlrootfs ${rest.map((word) => printable(word)).join(' ')}`,
      })
    );
  const hint = lookUpWord(COMMANDS, first);
  if (hint === undefined) return undefined;
  const words = rest.map((word) => printable(word).replace(/^docker:\/\//, ''));
  const image = rest.length > 0 ? '' : `; an image of that name is library/${first}`;
  return new UsageError(`dlrootfs has no command ${first}`, { hint: hint(words) + image });
}

/** Returns the error for a word after the image: a tag, a directory or a command in the wrong place. */
export function wordBehindImage(image: string, word: string, commands: readonly string[]): UsageError {
  const [name, shown] = [printable(image), printable(word) || '""'];
  const error = (hint: string) => new UsageError(`unexpected word: ${shown}`, { hint });
  if (commands.includes(word)) return error(`write dlrootfs ${shown} ${name}`);
  if (/^(?:(?:\/usr)?\/s?bin\/.+|(?:ba|da|a|z)?sh)$/.test(word))
    return error(`dlrootfs starts no containers: leave ${shown} out, then run chroot rootfs ${shown}`);
  if (word === 'always') return error('write --replace=always');
  if (namesHost(word) || /^[^./][^:]*:[^/:]+$/.test(word))
    return error(
      `a pull takes one image: write dlrootfs ${name} -d DIR and dlrootfs ${shown} -d DIR2, or ` +
        `to compare them dlrootfs diff ${name} ${shown}`,
    );
  const value = [image, word].find((each) => each === 'true' || each === 'false');
  if (value !== undefined) return error(`write =${value} behind a flag, as in --tls-verify=${value}`);
  const mayHaveTag = !/[:@][^/]*$/.test(image) && /^\w[\w.-]{0,127}$/.test(word);
  if (!mayHaveTag) return error(`write -d ${shown} for that directory`);
  if (word === 'latest' || /^v?\d/.test(word)) return error(`write dlrootfs ${name}:${shown}`);
  return error(`write -d ${shown} for that directory, or ${name}:${shown} for that tag`);
}
