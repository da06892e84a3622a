import type { Option } from 'commander';
import { version } from '../version.ts';
import { commands, options } from './commands.ts';
import { optionDescription, optionTerm } from './help.ts';
import { type Paragraph, topics } from './topics.ts';

/** Escapes text for roff: backslashes, hyphens, and control characters at the start of a line. */
function roff(text: string): string {
  return text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll(/^(?=[.'])/gm, '\\&');
}

/**
 * Returns the man page dlrootfs(1), made of the tables of `--help`.
 *
 * @param date YYYY-MM-DD
 */
export function manualPage(date: string): string {
  const pull = commands['pull']!;
  const others = Object.values(commands).filter((command) => command !== pull);
  const groups = Map.groupBy(options, (option) => option.helpGroupHeading ?? 'Other');
  return [
    `.TH DLROOTFS 1 "${date}" "dlrootfs ${version}" "User Commands"`,
    // No hyphenation or justification: file names and flags stay whole.
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
      ...[...groups].map(([heading, list]) => `.SS ${roff(heading)}\n${list.map(optionEntry).join('\n')}`),
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
  return tagged(`\\fB${roff(optionTerm(option))}\\fR`, roff(optionDescription(option)));
}

const description = `\
Downloads an image from Docker Hub or any other registry and unpacks its layers, in order, into a directory:
the root file system of a container of that image, for LXC, runc, systemd\\-nspawn, chroot or a virtual machine.
It needs no daemon, and another program only for
.BR \\-g
(git) and disk images. Digests verify every layer. No image can write outside the directory.
.PP
A new or empty directory appears complete or not at all. In a directory with other files, those of the image are added
and the others stay.
A directory that holds another image is refused:
.B \\-\\-merge
unpacks over it, and files of the older image stay;
.B \\-\\-replace
makes it exactly the image and removes any other file (see REFRESH). The file
.I json
in it has the image\\(aqs JSON, unless
.B \\-\\-no\\-json
is given.
.PP
Standard output has the lines of the original program of 2014; everything else goes to standard error.`;

const examples: readonly (readonly [text: string, line: string])[] = [
  ['The latest Ubuntu in ./rootfs:', 'dlrootfs ubuntu'],
  ['Another tag, another directory:', 'dlrootfs ubuntu:14.04 -d trusty'],
  [
    'A private image, its password from a file:',
    'dlrootfs registry.example.com/app:2 -u ci --password-stdin < password',
  ],
  ['Exactly one image, by its digest:', 'dlrootfs inspect -q alpine\ndlrootfs alpine@sha256:DIGEST'],
  ['Again, where there may be a newer image:', 'dlrootfs ubuntu --replace'],
  ['For another machine:', 'dlrootfs alpine --platform linux/arm64 -d alpine-arm64'],
  ['Through a proxy:', 'HTTPS_PROXY=http://proxy:3128 dlrootfs alpine'],
  ['From a registry without TLS:', 'dlrootfs registry.example.com:5000/app --plain-http'],
  ['Without a network:', 'dlrootfs cache add alpine\ndlrootfs alpine --offline'],
  ['One archive instead of a directory:', 'dlrootfs alpine -o alpine.tar.zst'],
  ['A container of LXC:', 'dlrootfs alpine -d /var/lib/lxc/web/rootfs --for lxc\nlxc-execute -n web'],
  ['What has changed in ./rootfs:', 'dlrootfs verify ubuntu'],
  ['One file of an image:', 'dlrootfs cat alpine /etc/os-release'],
  ['One git branch per layer:', 'dlrootfs ubuntu -g && git -C rootfs branch'],
];
