import { Option } from 'commander';
import type { ErofsCompression } from '../disk/format.ts';
import type { WantedLayers } from '../oci/first-layers.ts';
import { parsePlatform } from '../oci/platform.ts';
import type { PullRequest } from '../requests.ts';
import type { Runtime, VirtualMachine } from '../runtime/config-files.ts';
import {
  count,
  fileName,
  oneOf,
  startedBy,
  type ParseFlag,
  parseBoolean,
  parseBytes,
  parseDiskSize,
  parseDuration,
  parseLayers,
  parseOwner,
  replaceMode,
} from './flag-values.ts';

/** The values of the flags. A flag that is not given has its default, or is absent. */
export interface FlagValues
  extends
    Omit<PullRequest, 'image' | 'layers' | 'registry' | 'signers' | 'policy'>,
    NonNullable<PullRequest['registry']>,
    NonNullable<PullRequest['signers']> {
  readonly output?: string;
  readonly policy?: string;
  readonly insecurePolicy?: boolean;
  /** Values in the order of the command line. */
  readonly layers?: readonly WantedLayers[];
  readonly for?: readonly (Runtime | VirtualMachine)[];
  readonly userns?: boolean;
  readonly dryRun?: boolean;
  readonly contents?: boolean;
  readonly long?: boolean;
  readonly index?: boolean;
  readonly user?: string;
  readonly passwordStdin?: boolean;
  readonly registryToken?: string;
  /** False after `--no-creds`. */
  readonly creds?: boolean;
  readonly quiet?: boolean;
  readonly verbose?: boolean;
  readonly json?: boolean;
  readonly progress?: 'auto' | 'tty' | 'plain' | 'json' | 'none';
  /** With `--help`: print every command, flag and exit code. */
  readonly all?: boolean;
}

/** The members of a request that some flags set under another name. `--no-json` is unrelated to `--json`. */
const MEMBERS: Readonly<Record<string, keyof FlagValues>> = {
  '--dest': 'destination',
  '--size': 'diskSize',
  '--compress': 'diskCompression',
  '--path': 'paths',
  '--exclude': 'excludes',
  '--no-json': 'layerInfo',
  '--authfile': 'authFile',
  '--cache-dir': 'cacheDirectory',
  '--mirror': 'mirrors',
  '--verify-key': 'verifyKeys',
};

/** An option of the table. Its parsers get the flag's name for their messages. */
class TableOption extends Option {
  /** Collects the values of a flag that is given several times. */
  list<T>(parse: ParseFlag<readonly T[]>): this {
    return this.argParser((text, before: readonly T[] | undefined) => [
      ...new Set([...(before ?? []), ...parse(text, this.long!)]),
    ]);
  }

  /** Collects all values, equal ones too. */
  each<T>(parse: ParseFlag<T>): this {
    return this.argParser((text, before: readonly T[] | undefined) => [
      ...(before ?? []),
      parse(text, this.long!),
    ]);
  }

  parsed<T>(parse: ParseFlag<T>): this {
    return this.argParser((text) => parse(text, this.long!));
  }

  oneOf(choices: readonly string[]): this {
    return this.choices(choices).parsed(oneOf(choices));
  }

  override attributeName(): string {
    return MEMBERS[this.long!] ?? super.attributeName();
  }
}

type FlagRow = readonly [flags: string, description: string, refine?: (option: TableOption) => TableOption];

const group = (heading: string, rows: readonly FlagRow[]): TableOption[] =>
  rows.map(([flags, description, refine = (option) => option]) =>
    refine(new TableOption(flags, description).helpGroup(heading)),
  );

const whatAndWhere = group('What and where', [
  ['-d, --dest <dir>', 'destination of the resulting rootfs directory', (o) => o.default('./rootfs')],
  ['-g, --git', 'use git layering: one branch and one commit per layer'],
  [
    '-o, --output <file>',
    'write one file instead of a directory: x.tar, x.tar.gz, x.tar.zst, a disk image (x.ext4, ' +
      'x.squashfs, x.erofs), or - for a tar on standard output; an existing file is replaced',
  ],
  [
    '--size <size>',
    'size of the ext4, as 500M or 2G (default: by its content)',
    (o) => o.parsed(parseDiskSize),
  ],
  [
    '--compress <algorithm>',
    'compress the erofs, by mkfs.erofs (default: not compressed, and no program is needed)',
    (o) => o.oneOf(['lz4', 'lz4hc', 'deflate', 'lzma', 'zstd'] satisfies ErofsCompression[]),
  ],
  [
    '--platform <os/arch[/variant]>',
    'the image for this platform (default: that of this host)',
    (o) => o.parsed(parsePlatform),
  ],
  [
    '--layers <n|id>',
    "only the first N layers, or those up to the one whose id begins so; with diff, twice: each image's",
    (o) => o.each(parseLayers),
  ],
  ['--path <path>', 'only this file or directory of the image (repeatable)', (o) => o.list((text) => [text])],
  [
    '--exclude <pattern>',
    'leave out what the pattern matches, as *.pyc or usr/share/doc (repeatable)',
    (o) => o.list((text) => [text]),
  ],
  [
    '--add <src[:dest]>',
    'lay a file, a directory or an archive of this machine over the image, at DEST (repeatable)',
    (o) => o.list((text) => [text]),
  ],
  [
    '--add-owner <uid[:gid]>',
    'owner of what --add lays over the image (default: root, and in an archive its own owners)',
    (o) => o.parsed(parseOwner),
  ],
  [
    '--replace [always]',
    'make DIR exactly the image and remove any other file in it; an unchanged DIR is left as it ' +
      'is (=always: rebuild it)',
    (o) => o.parsed(replaceMode).preset('touched'),
  ],
  ['--merge', 'unpack the image over the files that DIR holds; without it DIR must be empty'],
  ['--no-json', "do not write the image's JSON to DIR/json"],
  [
    '--for <runtime>',
    'write the configuration of runc, lxc or nspawn beside DIR, or with -o a script that starts ' +
      'the disk image in qemu (repeatable)',
    (o) => o.list((text, flag) => text.split(',').map((name) => startedBy(name, flag))),
  ],
  ['--force', 'with --for: replace existing configurations'],
  ['--rootless', 'with --for runc: a container that needs no root (the default when not root)'],
  ['--userns', 'as a plain user: owners, setuid bits and capabilities as root has them, in a user namespace'],
  [
    '--prepare',
    'add missing mount points and files that a system needs to boot; with verify, leave these out',
  ],
  [
    '--dry-run',
    'print what a pull would download, as inspect does; with --replace, whether DIR is up to ' +
      'date (exit code 9: it is not)',
  ],
]);

export const comparison = group('Comparison', [
  ['--contents', 'compare what files hold too, not only sizes and times: reads every byte'],
]);

export const looking = group('Looking', [
  ['-l, --long', 'with ls: mode, owner, size and time too'],
  ['--index', 'with inspect: print only the digest of the index, which names the images of all platforms'],
]);

const credentials = group('Credentials', [
  ['-u, --user <user[:password]>', 'registry credentials; without a password it is asked for (also --creds)'],
  ['--password-stdin', 'read the password of -u from standard input'],
  ['--registry-token <token>', 'bearer token for the registry'],
  ['--authfile <file>', 'credentials file in the format of docker and podman', (o) => o.parsed(fileName)],
  ['--no-creds', 'send no credentials, even configured ones'],
]);

const registry = group('Registry', [
  [
    '--tls-verify [bool]',
    'verify certificates (default: true); false accepts any, and uses plain http where https fails',
    (o) => o.parsed(parseBoolean).preset('true'),
  ],
  ['--plain-http', 'use http instead of https'],
  ['--cert-dir <dir>', 'CA (*.crt) and client certificates (*.cert, *.key)', (o) => o.parsed(fileName)],
  ['--ca-file <file>', 'trust this CA too', (o) => o.parsed(fileName)],
  ['--cert-file <file>', 'client certificate', (o) => o.parsed(fileName)],
  ['--key-file <file>', 'key of the client certificate', (o) => o.parsed(fileName)],
  ['--mirror <host[:port][/path]>', 'try this registry first (repeatable)', (o) => o.list((text) => [text])],
  [
    '--registry-version <1|2>',
    'use only this version of the registry protocol',
    (o) => o.choices(['1', '2']).parsed((text, flag) => (oneOf(['1', '2'])(text, flag) === '1' ? 1 : 2)),
  ],
  ['--retry <n>', 'retries after a transient error (default: 5)', (o) => o.parsed(count(0))],
  [
    '--retry-delay <duration>',
    'delay before the first retry, as 500ms or 2s (default: 500ms; doubles each time)',
    (o) => o.parsed(parseDuration),
  ],
]);

const trust = group('Trust', [
  [
    '--verify-key <file>',
    'the image must be signed with this public key, as cosign.pub (repeatable: with any of them)',
    (o) => o.list((text, flag) => [fileName(text, flag)]),
  ],
  [
    '--certificate-identity <identity>',
    'the image must be signed by this workflow or mail address, with a certificate of Sigstore',
  ],
  ['--certificate-identity-regexp <regexp>', 'likewise, by a regular expression (anchor it with ^ and $)'],
  ['--certificate-oidc-issuer <url>', 'the provider that vouches for the identity'],
  ['--certificate-oidc-issuer-regexp <regexp>', 'likewise, by a regular expression'],
  [
    '--trusted-root <file>',
    "trusted_root.json with the authorities (default: those of Sigstore's public instance)",
    (o) => o.parsed(fileName),
  ],
  [
    '--policy <file>',
    'obey this policy.json (default: ~/.config/containers/policy.json, else /etc/containers/policy.json)',
    (o) => o.parsed(fileName),
  ],
  ['--insecure-policy', 'obey no policy.json: accept any image'],
]);

const download = group('Download and cache', [
  ['-j, --jobs <n>', 'number of connections (default: 7)', (o) => o.parsed(count(1))],
  ['--cache-dir <dir>', 'directory of the cache'],
  ['--cache-size <size>', 'limit of the cache, as 500M or 10G (default: 10G)', (o) => o.parsed(parseBytes)],
  ['--no-cache', 'do not use the cache'],
  ['--offline', 'use the cache alone, and no network'],
]);

const outputFlags = group('Output', [
  [
    '-q, --quiet',
    'print only the result: of a pull the destination; with inspect, the digest; with verify and diff, nothing',
  ],
  ['-v, --verbose', 'log requests, decisions and timings on standard error (also --debug)'],
  ['--json', 'print one JSON object at the end instead of lines'],
  [
    '--progress <style>',
    'progress on standard error',
    (o) => o.oneOf(['auto', 'tty', 'plain', 'json', 'none']).default('auto'),
  ],
]);

const other = group('Other', [
  ['-h, --help', 'print help'],
  ['-V, --version', 'print the version'],
]);
const wholeHelpFlag = group('Other', [['--all', 'with --help: print every command, flag and exit code']]);

/** Every flag once, in the order of `--help`. */
export const options: readonly Option[] = [
  ...whatAndWhere,
  ...comparison,
  ...looking,
  ...credentials,
  ...registry,
  ...trust,
  ...download,
  ...outputFlags,
  ...other,
  ...wholeHelpFlag,
];

/** Names of flags in other tools, and the long name of our flag. */
const FLAG_ALIASES: Readonly<Record<string, string>> = { creds: 'user', debug: 'verbose' };

/** Returns the flag with this long, short or other tool's name, given without dashes. */
export function optionNamed(name: string): Option | undefined {
  const meant = Object.hasOwn(FLAG_ALIASES, name) ? FLAG_ALIASES[name] : name;
  return options.find(({ long, short }) => long === `--${meant}` || short === `-${meant}`);
}

/** Returns the spellings of a flag, the short one first. */
export const spellings = ({ short, long }: Option): string[] =>
  [short, long].filter((flag) => flag !== undefined);

const named = (...names: readonly string[]): Option[] =>
  names.map((name) => options.find(({ long }) => long === `--${name}`)!);

/** Flags of a command that sends requests to a registry; below, of one that also reads layers. */
const remote = [...credentials, ...registry];
const layered = [...named('platform'), ...remote, ...trust, ...download];

/** Flags of a command whose result is text; `--quiet` only omits the progress. */
const report = named('quiet', 'verbose', 'progress');

/** A command in help, man page, completions and parser. */
export interface CommandDescription {
  /** The words after the program's name. */
  readonly synopsis: string;
  readonly summary: string;
  /** The words after the command, in commander's notation: `<required> [optional]`. Default: none. */
  readonly words?: readonly string[];
  readonly options: readonly Option[];
}

const table = {
  pull: {
    synopsis: 'IMAGE[:TAG|@DIGEST]',
    summary: 'turn an image into a root file system',
    words: ['<image>'],
    options: options.filter((option) => ![...comparison, ...looking].includes(option as TableOption)),
  },
  inspect: {
    synopsis: 'inspect IMAGE',
    summary: 'describe an image: digest, platforms, command, layers, and what a pull of it would download',
    words: ['<image>'],
    options: [...named('index'), ...layered, ...outputFlags, ...other],
  },
  verify: {
    synopsis: 'verify IMAGE [-d DIR]',
    summary: 'print what differs between DIR and an image; exit code 9 if anything does',
    words: ['<image>'],
    options: [
      ...named('dest', 'layers', 'path', 'exclude', 'add', 'add-owner', 'contents', 'prepare', 'userns'),
      ...layered,
      ...outputFlags,
      ...other,
    ],
  },
  diff: {
    synopsis: 'diff IMAGE1 IMAGE2',
    summary: 'print what differs between two images; exit code 9 if anything does',
    words: ['<image>', '<image>'],
    options: [...named('layers', 'path', 'exclude'), ...layered, ...outputFlags, ...other],
  },
  ls: {
    synopsis: 'ls IMAGE [PATH]',
    summary: 'list a directory of an image, without unpacking it',
    words: ['<image>', '[path]'],
    options: [...named('long', 'layers'), ...layered, ...report, ...other],
  },
  cat: {
    synopsis: 'cat IMAGE PATH',
    summary: 'write what a file of an image holds to standard output',
    words: ['<image>', '<path>'],
    options: [...named('layers'), ...layered, ...report, ...other],
  },
  tags: {
    synopsis: 'tags REPOSITORY',
    summary: 'list the tags of a repository, one per line',
    words: ['<repository>'],
    options: [...remote, ...report, ...named('json'), ...other],
  },
  cache: {
    synopsis: 'cache [size|list|prune|add IMAGE|rm IMAGE]',
    summary:
      'print the size of the cache; list has its images; prune empties it, or shrinks it to ' +
      '--cache-size; add downloads images into it, rm removes them',
    words: ['[size|list|prune|add|rm]', '[image...]'],
    options: [
      ...named('platform'),
      ...remote,
      ...trust,
      ...named('jobs', 'cache-dir', 'cache-size'),
      ...report,
      ...named('json'),
      ...other,
    ],
  },
  completion: {
    synopsis: 'completion bash|zsh|fish',
    summary: 'print the completions for a shell',
    words: ['<shell>'],
    options: [...named('quiet'), ...other],
  },
  help: {
    synopsis: 'help [COMMAND|TOPIC|FLAG]',
    summary: 'print the help of a command, topic or flag',
    words: ['[topic...]'],
    options: [...named('quiet'), ...other, ...wholeHelpFlag],
  },
  version: { synopsis: 'version', summary: 'print the version', options: [...named('quiet'), ...other] },
} satisfies Readonly<Record<string, CommandDescription>>;

export type CommandName = keyof typeof table;

/** Commands by their words. `pull` needs no word; the others take precedence over images of that name. */
export const commands: Readonly<Record<string, CommandDescription>> = table;
