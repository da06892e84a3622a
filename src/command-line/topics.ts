/** Running text, or a list of terms and what they mean. */
export type Paragraph = string | readonly (readonly [term: string, meaning: string])[];

/** What `dlrootfs help TOPIC` prints; the man page has each as a section. */
export interface Topic {
  /** The section's heading in the man page. */
  readonly title: string;
  readonly summary: string;
  readonly paragraphs: readonly Paragraph[];
}

export const topics: Readonly<Record<string, Topic>> = {
  credentials: {
    title: 'CREDENTIALS',
    summary: 'where user name and password come from',
    paragraphs: [
      'Where docker pull or skopeo copy works, nothing more is needed. Credentials are taken from the first of these that has some for the image:',
      [
        ['-u USER:PASSWORD', 'cut at the first colon; -u USER alone asks for the password on the terminal'],
        ['--password-stdin', 'the password of -u, from standard input to its end'],
        [
          '--registry-token TOKEN',
          'a bearer token, sent as it is instead of user name and password; also DLROOTFS_REGISTRY_TOKEN in the environment',
        ],
        ['DLROOTFS_CREDS', 'USER:PASSWORD in the environment'],
        [
          '--authfile FILE',
          'a credentials file in the format of docker and podman; no other file is looked at',
        ],
        ['REGISTRY_AUTH_FILE', 'the name of such a file, likewise'],
        ['auth.json', "podman's and skopeo's, in $XDG_RUNTIME_DIR/containers, then in ~/.config/containers"],
        ['DOCKER_AUTH_CONFIG', 'the text of such a file'],
        ['config.json', "docker's, in $DOCKER_CONFIG or ~/.docker; then ~/.dockercfg"],
      ],
      'Credential helpers that these files name are run. --no-creds asks anonymously whatever is configured.',
      'A password or token is never printed, not with -v either, and never sent to another host than the registry it is for. One in the arguments is seen by other users of the machine, and stays in the history of the shell: prefer the other ways.',
    ],
  },
  registries: {
    title: 'REGISTRIES',
    summary: 'names of images, mirrors, certificates, plain http',
    paragraphs: [
      [
        ['ubuntu, ubuntu:14.04', 'docker.io/library/ubuntu on Docker Hub; without a tag it is latest'],
        ['org/app:1', 'docker.io/org/app on Docker Hub'],
        ['host[:port]/path[:tag]', 'any other registry: a host has a dot or a port in it, or is localhost'],
        ['…@sha256:DIGEST', 'exactly that manifest; a tag beside it says nothing'],
      ],
      'Registries are spoken to by https. Plain http is for loopback addresses, with --plain-http, and where https fails with --tls-verify=false. Version 2 of the protocol is tried first, version 1 where a registry knows no other.',
      'A certificate of your own authority: --ca-file, or *.crt in /etc/containers/certs.d/HOST:PORT or /etc/docker/certs.d/HOST:PORT, with client certificates beside it. NODE_EXTRA_CA_CERTS counts too.',
      'Mirrors are asked before the registry itself: --mirror HOST, or [[registry.mirror]] in /etc/containers/registries.conf (also CONTAINERS_REGISTRIES_CONF, ~/.config/containers/registries.conf), whose insecure, blocked and location count as with podman. Whatever a mirror sends is held against the digests.',
    ],
  },
  cache: {
    title: 'CACHE',
    summary: 'what is kept for the next run',
    paragraphs: [
      'Layers, manifests and what has come of interrupted downloads are kept in $XDG_CACHE_HOME/dlrootfs (~/.cache/dlrootfs), 10 GiB at most; what was used longest ago goes first. A second pull of an image fetches nothing, an interrupted one goes on where it stopped.',
      [
        ['--cache-dir DIR', 'keep it elsewhere; runs at the same time can share it'],
        ['--cache-size SIZE', 'keep at most this much'],
        ['--no-cache', 'keep nothing, use nothing'],
        ['dlrootfs cache', 'say what it holds'],
        ['dlrootfs cache prune', 'empty it, or with --cache-size make it fit'],
      ],
      'Nothing in it is trusted: what is damaged is noticed by its digest and fetched again. It may be deleted at any time.',
    ],
  },
  sources: {
    title: 'SOURCES',
    summary: 'images on this machine: oci:, oci-archive:, docker-archive:, -',
    paragraphs: [
      'In the place of an image in a registry there may stand, with the names of skopeo and the same checks:',
      [
        ['oci:DIR[:TAG]', 'an OCI layout, as of skopeo copy docker://… oci:DIR'],
        ['oci-archive:FILE[:TAG]', 'a tar of one'],
        ['docker-archive:FILE[:NAME:TAG]', 'as of docker save or podman save'],
        ['-', 'a tar of either kind on standard input, as in docker save alpine | dlrootfs -'],
      ],
      'Archives may be compressed. Of several images in one, @0, @1 and so on in the place of the tag name the first, the second. A path cannot contain a colon. An image called oci is written library/oci:1.',
    ],
  },
  output: {
    title: 'OUTPUT',
    summary: 'standard output, progress, JSON, one archive',
    paragraphs: [
      "Standard output carries the original's lines: Opening a session, Image ID, a line for each layer, Rootfs of IMAGE in DIR. Progress, notices and errors go to standard error; an error is error: with what happened and, last, hint: with what to do.",
      [
        ['-q', 'only the destination, as it was typed'],
        [
          '--json',
          'one object on one line at the end: digests, layers, sizes, seconds (docs/schema/summary.schema.json)',
        ],
        ['--progress tty', 'bars, gone at the end; what auto does on a terminal that is not dumb'],
        ['--progress plain', 'a line every five seconds; what auto does elsewhere'],
        [
          '--progress json',
          'every line on standard error is an object, errors too (docs/schema/progress.schema.json)',
        ],
        ['--progress none', 'none; notices and errors still come'],
        ['-v', 'requests without their secrets, decisions, timings'],
        [
          '-o FILE.tar[.gz|.zst]',
          'one archive instead of a directory: the same image gives the same bytes; no root is needed',
        ],
        ['-o -', 'that tar on standard output, and nothing else there'],
      ],
    ],
  },
  git: {
    title: 'GIT LAYERS',
    summary: 'what -g makes, and how to go back to a layer',
    paragraphs: [
      'With -g the rootfs is a git repository in which each layer is a commit on a branch of its own: layer<n>_<id> is made from layer<n-1>_… with the files of layer n on top, and the last one is checked out. So git diff layer0_… layer1_… shows what layer 1 did.',
      'What git cannot hold (owners, exact modes, times, extended attributes, hard links, devices, empty directories) stands in a record of each layer, a ref of its own under refs/dlrootfs. git checkout works within the means of git; dlrootfs checkout layer1 -d DIR puts everything back exactly.',
      'Pulling the same image again into the same DIR says so and does nothing; another tag of it goes on from the last common layer. Nothing of the image and nothing of your own git configuration is run.',
    ],
  },
  environment: {
    title: 'ENVIRONMENT',
    summary: 'variables that are read',
    paragraphs: [
      [
        ['DLROOTFS_CREDS', 'credentials, as for -u'],
        ['DLROOTFS_REGISTRY_TOKEN', 'bearer token, as for --registry-token'],
        ['REGISTRY_AUTH_FILE', 'credentials file, as for --authfile'],
        ['DOCKER_AUTH_CONFIG', 'text of a credentials file'],
        ['DOCKER_CONFIG', "directory of docker's config.json"],
        ['CONTAINERS_REGISTRIES_CONF', 'file to read in the place of registries.conf'],
        ['XDG_CACHE_HOME', 'layers are kept in its directory dlrootfs (default: ~/.cache)'],
        ['XDG_RUNTIME_DIR, XDG_CONFIG_HOME', "where podman's and skopeo's configuration is looked for"],
        ['HTTP_PROXY, HTTPS_PROXY, NO_PROXY', 'proxies, in capitals or small letters'],
        ['NODE_EXTRA_CA_CERTS', 'file with further CAs to trust'],
        [
          'TERM',
          'a terminal that is dumb gets plain lines; there are no colours, so NO_COLOR changes nothing',
        ],
      ],
    ],
  },
  'exit-codes': {
    title: 'EXIT STATUS',
    summary: 'what the exit code says',
    paragraphs: [
      [
        ['0', 'done'],
        ['1', 'a bug in dlrootfs'],
        ['2', 'usage: wrong flags, arguments or settings'],
        ['3', 'image, tag or platform not found'],
        ['4', 'not authorized'],
        ['5', 'network: the registry cannot be reached, or its answer is not one of a registry'],
        ['6', 'integrity: a digest is wrong, or manifest, config or layer are malformed'],
        ['7', 'destination (or git): it cannot be read or written'],
        ['8', 'rate limit of the registry'],
        ['129, 130, 141, 143', 'ended by SIGHUP, SIGINT, SIGPIPE, SIGTERM'],
      ],
    ],
  },
};

export const topicNames: readonly string[] = Object.keys(topics);
