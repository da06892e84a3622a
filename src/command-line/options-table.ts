import { Option } from 'commander';
import type { FlagShape } from './flags.ts';

/** Headings of `--help`, in print order. */
export type Group = 'What and where' | 'Credentials' | 'Registry' | 'Download and store' | 'Output' | 'Other';

/** `--no-json` (no file `json` in the rootfs) has nothing to do with `--json` (an object on standard output). */
class LayerInfoOption extends Option {
  override attributeName(): string {
    return 'layerInfo';
  }
}

const option = (group: Group, flags: string, description: string) =>
  new Option(flags, description).helpGroup(group);

/** Repeatable flags become lists. */
const collect = (value: string, before: readonly string[] = []) => [...before, value];

const destination = [
  option('What and where', '-d, --dest <dir>', 'destination of the resulting rootfs directory').default(
    './rootfs',
  ),
];

const platform = [
  option('What and where', '--platform <os/arch[/variant]>', 'the image for another platform than this host'),
];

const force = [
  option(
    'What and where',
    '--force',
    'replace configurations that are there; with checkout, what is in no commit',
  ),
];

const what = [
  ...destination,
  option('What and where', '-g, --git', 'use git layering: one branch and one commit per layer'),
  option(
    'What and where',
    '-o, --output <file>',
    'write one tar instead of a directory, as x.tar, x.tar.gz, x.tar.zst, or - for stdout',
  ),
  ...platform,
  option('What and where', '--merge', 'lay the image over another image that DIR holds'),
  new LayerInfoOption('--no-json', "do not write the image's JSON to DIR/json").helpGroup('What and where'),
  option(
    'What and where',
    '--for <runtime>',
    'write the configuration of runc, lxc or nspawn beside DIR (repeatable)',
  ).argParser(collect),
  ...force,
  option(
    'What and where',
    '--rootless',
    'with --for runc: a container that needs no root (the default when not root)',
  ),
  option(
    'What and where',
    '--prepare',
    'add the mount points and files to boot with that the image leaves out',
  ),
  option('What and where', '--dry-run', 'only say what a pull would do, as inspect'),
];

const credentials = [
  option('Credentials', '-u, --user <username:password>', 'registry credentials (also --creds)'),
  option('Credentials', '--password-stdin', 'read the password of -u from standard input'),
  option('Credentials', '--registry-token <token>', 'bearer token, sent to the registry as it is'),
  option('Credentials', '--authfile <file>', 'credentials file in the format of docker and podman'),
  option('Credentials', '--no-creds', 'ask anonymously, whatever is configured'),
];

const registry = [
  option(
    'Registry',
    '--tls-verify [bool]',
    'check certificates and refuse plain http (--tls-verify=false does not)',
  ).preset('true'),
  option('Registry', '--plain-http', 'speak http, not https'),
  option('Registry', '--cert-dir <dir>', 'CA (*.crt) and client certificates (*.cert, *.key)'),
  option('Registry', '--ca-file <file>', 'trust this CA too'),
  option('Registry', '--cert-file <file>', 'client certificate'),
  option('Registry', '--key-file <file>', 'key of the client certificate'),
  option('Registry', '--mirror <host[:port][/path]>', 'ask this registry first (repeatable)').argParser(
    collect,
  ),
  option('Registry', '--registry-version <1|2>', 'speak only this version of the registry protocol').choices([
    '1',
    '2',
  ]),
  option('Registry', '--retry <n>', 'tries again after a fault that may pass'),
  option(
    'Registry',
    '--retry-delay <duration>',
    'wait before the first of them, as 500ms or 2s (doubles each time)',
  ),
];

const cache = [
  option('Download and store', '--cache-dir <dir>', 'where layers are kept for the next run'),
  option('Download and store', '--cache-size <size>', 'at most this much, as 500M or 10G').default('10G'),
];

const transfer = [
  option('Download and store', '-j, --jobs <n>', 'connections at once').default('7'),
  ...cache,
  option('Download and store', '--no-cache', 'keep nothing'),
];

const other = [
  option('Other', '-h, --help', 'print this help'),
  option('Other', '-V, --version', 'print the version'),
];

const json = [option('Output', '--json', 'print one JSON object at the end instead of lines')];

const output = [
  option('Output', '-q, --quiet', 'print only the destination'),
  option(
    'Output',
    '-v, --verbose',
    'tell of requests, decisions and timings on standard error (also --debug)',
  ),
  ...json,
  option('Output', '--progress <how>', 'progress on standard error')
    .choices(['auto', 'tty', 'plain', 'json', 'none'])
    .default('auto'),
];

/** All options by what they are about; commands.ts says which command takes which. */
export const optionGroups = {
  what,
  force,
  destination,
  platform,
  credentials,
  registry,
  transfer,
  cache,
  output,
  json,
  other,
};

/** Spellings that other tools use for the same thing; the value is the flag's long name. */
const aliases: Readonly<Record<string, string>> = { creds: 'user', debug: 'verbose' };

/** What the splitter needs to know of every flag. */
export function flagShapes(): FlagShape[] {
  return [...new Set(Object.values(optionGroups).flat())].map(({ long, short, required, optional }) => {
    const name = long!.slice(2);
    const also = Object.keys(aliases).filter((alias) => aliases[alias] === name);
    return {
      names: [...(short === undefined ? [] : [short.slice(1)]), ...also, name],
      takes: required ? 'value' : optional ? 'optional' : 'boolean',
    };
  });
}
