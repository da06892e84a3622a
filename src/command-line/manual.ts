import type { Option } from 'commander';
import { version } from '../version.ts';
import { commands, optionDescription } from './commands.ts';
import type { Paragraph } from './topics.ts';
import { topics } from './topics.ts';

/** Text as roff: backslashes and hyphens escaped, no line taken for a request. */
function roff(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll(/^(?=[.'])/gm, '\\&');
}

/** The man page dlrootfs(1), made from the same tables as `--help`; `date` (YYYY-MM-DD) stands at its foot. */
export function manualPage(date: string): string {
  const pull = commands['pull']!;
  const others = Object.values(commands).filter((command) => command !== pull);
  const groups = Map.groupBy(pull.options, (option) => option.helpGroupHeading ?? 'Other');
  return [
    `.TH DLROOTFS 1 "${date}" "dlrootfs ${version}" "User Commands"`,
    // Names of files and flags are neither hyphenated nor pulled apart.
    '.nh\n.ds AD l\n.ad l',
    section('NAME', 'dlrootfs \\- turn a container image in a registry into a root file system directory'),
    section('SYNOPSIS', `.B dlrootfs\n${roff(pull.synopsis)} [\\fIOPTION\\fR]...`, ...others.map(synopsis)),
    section('DESCRIPTION', description),
    section(
      'COMMANDS',
      ...others.map(({ synopsis: words, summary }) => tagged(`\\fB${roff(words)}\\fR`, roff(summary))),
    ),
    section(
      'OPTIONS',
      ...[...groups].map(
        ([heading, options]) => `.SS ${roff(heading)}\n${options.map(optionEntry).join('\n')}`,
      ),
    ),
    ...Object.values(topics).map(({ title, paragraphs }) =>
      section(title, ...paragraphs.map(topicParagraph)),
    ),
    section('EXAMPLES', ...examples.map(([text, line]) => tagged(roff(text), `.nf\n${roff(line)}\n.fi`))),
    section(
      'SEE ALSO',
      '.BR lxc.container.conf (5),\n.BR runc (8),\n.BR systemd-nspawn (1),\n.BR containers-auth.json (5)',
    ),
    '',
  ].join('\n');
}

const section = (title: string, ...paragraphs: readonly string[]) => `.SH ${title}\n${paragraphs.join('\n')}`;
const tagged = (tag: string, text: string) => `.TP\n${tag}\n${text}`;
const synopsis = ({ synopsis: words }: { readonly synopsis: string }) => `.br\n.B dlrootfs\n${roff(words)}`;

function topicParagraph(paragraph: Paragraph, index: number): string {
  if (typeof paragraph === 'string') return `${index > 0 ? '.PP\n' : ''}${roff(paragraph)}`;
  return paragraph.map(([term, meaning]) => tagged(`\\fB${roff(term)}\\fR`, roff(meaning))).join('\n');
}

function optionEntry(option: Option): string {
  return tagged(`\\fB${roff(option.flags)}\\fR`, roff(optionDescription(option)));
}

const description = `Downloads an image from Docker Hub or any other registry and unpacks its layers, in order, into a directory:
the root file system that a container of that image would see, for LXC, runc, systemd\\-nspawn, chroot or a virtual machine.
No daemon, no store and no other program is needed. Layers are verified by their digests, and nothing is written outside
the directory, whatever an image contains.
.PP
A new or empty directory appears complete or not at all. Into a directory that holds files the image is laid over them.
.PP
Standard output carries what the original program of 2014 printed; everything else goes to standard error.`;

const examples: readonly (readonly [text: string, line: string])[] = [
  ['The latest Ubuntu in ./rootfs:', 'dlrootfs ubuntu'],
  ['Another tag, another directory:', 'dlrootfs ubuntu:14.04 -d trusty'],
  [
    'A private image, its password from a file:',
    'dlrootfs registry.example.com/app:2 -u ci --password-stdin < password',
  ],
  ['For another machine:', 'dlrootfs alpine --platform linux/arm64 -d alpine-arm64'],
  ['One git branch a layer:', 'dlrootfs ubuntu -g && git -C rootfs branch'],
];
