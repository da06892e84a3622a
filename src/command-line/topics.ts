/** Text, or a list of terms and their meanings. */
export type Paragraph = string | readonly (readonly [term: string, meaning: string])[];

/** A text of `dlrootfs help TOPIC`, and a section of the man page. */
export interface Topic {
  /** The section's heading in the man page. */
  readonly title: string;
  readonly summary: string;
  readonly paragraphs: readonly Paragraph[];
}

/**
 * A topic begins with `# name: HEADING: summary`. Each further line is a paragraph, or, if it is indented by
 * two blanks, a term, two blanks, and its meaning.
 */
const TEXT = `
# credentials: CREDENTIALS: sources of user name and password
Logins of docker, podman and skopeo work as they are. The first of these sources with credentials for the image is used:
  -u USER[:PASSWORD]  split at the first colon; -u USER asks for the password on the terminal
  --password-stdin  read the password of -u from standard input
  --registry-token TOKEN  a bearer token instead of user name and password; also the variable DLROOTFS_REGISTRY_TOKEN
  DLROOTFS_CREDS  USER:PASSWORD in the environment
  --authfile FILE  a credentials file in the format of docker and podman; no other file is read
  REGISTRY_AUTH_FILE  the name of such a file, with the same effect
  auth.json  the file of podman and skopeo: $XDG_RUNTIME_DIR/containers/auth.json, then ~/.config/containers/auth.json
  DOCKER_AUTH_CONFIG  the content of such a file
  config.json  the file of docker: $DOCKER_CONFIG/config.json or ~/.docker/config.json, then ~/.dockercfg
Credential helpers that these files name are run. --no-creds sends no credentials at all.
Passwords and tokens are never printed, not even with -v. They are sent only to the registry that they are for. Other users of the machine can see arguments, and the shell keeps them in its history: prefer the other sources.

# registries: REGISTRIES: image names, certificates, plain http, proxies, mirrors
  ubuntu, ubuntu:14.04  docker.io/library/ubuntu on Docker Hub; the default tag is latest
  org/app:1  docker.io/org/app on Docker Hub
  host[:port]/path[:tag]  another registry: a host contains a dot or a port, or is localhost
  …@sha256:DIGEST  exactly that manifest, to pin an image: dlrootfs inspect -q IMAGE prints it, for this platform or that of --platform; with --index it prints the digest of the index, which pins all platforms. A tag beside it is ignored. Image ID is the digest of the config: no registry finds an image by it
The protocol is https. Plain http is used for loopback addresses, with --plain-http, and with --tls-verify=false where https fails. Version 2 of the registry protocol is tried first, then version 1.
For a private CA use --ca-file, or put *.crt into /etc/containers/certs.d/HOST:PORT or /etc/docker/certs.d/HOST:PORT, with client certificates beside it. NODE_EXTRA_CA_CERTS works too.
Behind a proxy set HTTPS_PROXY, as in HTTPS_PROXY=http://proxy:3128 dlrootfs alpine; HTTP_PROXY is for plain http. A proxy may be http://, https:// or socks5://, with user:password@. NO_PROXY names the hosts that need none; loopback never does.
Mirrors are tried before the registry itself: --mirror HOST, or [[registry.mirror]] in /etc/containers/registries.conf (also CONTAINERS_REGISTRIES_CONF, ~/.config/containers/registries.conf). The settings insecure, blocked and location work as in podman. Digests verify the content of a mirror.

# trust: TRUST: signatures of images, and policy.json: --verify-key, --certificate-identity, --policy
A digest proves that an image is the one that the registry names, not its maker. With these flags an image must be signed. The signature is checked before the first layer is requested; without a valid one nothing is written, and the exit code is 6:
  --verify-key cosign.pub  with this key, as by cosign sign --key, or by skopeo or podman with --sign-by-sigstore-private-key; several times: with any of them
  --certificate-identity NAME --certificate-oidc-issuer URL  by this identity with a certificate of Sigstore, as by a workflow of GitHub; both are needed
  --certificate-identity-regexp, --certificate-oidc-issuer-regexp  likewise, by regular expressions, which match anywhere: write ^ and $
  --trusted-root FILE  the authorities for identities; without it those of Sigstore's public instance, embedded with their date
  dlrootfs inspect IMAGE --verify-key cosign.pub  prints the valid signatures
For a workflow of GitHub: --certificate-identity https://github.com/ORG/REPO/.github/workflows/FILE@refs/heads/main --certificate-oidc-issuer https://token.actions.githubusercontent.com. The signature may be of the index of the platforms, or of the manifest of one platform. It may be a referrer (a bundle of Sigstore or the older form) or under the tag sha256-….sig, in oci: and oci-archive: too. The cache keeps them for --offline.
dlrootfs obeys the policy of this machine, as podman and skopeo do: ~/.config/containers/policy.json, else /etc/containers/policy.json (containers-policy.json(5)). The flags above add further conditions. If the policy refuses the image or cannot be read, the exit code is 6, and no layer is requested. Without such a file every image is accepted. inspect prints an image in any case, with a notice if a pull is refused.
  --policy FILE  another policy
  --insecure-policy  no policy
A sigstoreSigned requirement counts only signatures for which registries.d has use-sigstore-attachments: true (containers-registries.d(5)), as with podman. Signatures by cosign may name no tag: they need "signedIdentity": {"type": "matchRepository"}. signedBy needs the program gpgv; "pki" is not supported and refuses.

# cache: CACHE: what the cache keeps, and where
The cache keeps layers, manifests and partial downloads in $XDG_CACHE_HOME/dlrootfs (~/.cache/dlrootfs), at most 10 GiB; the least recently used files are removed first. A second pull of an image downloads no layer, and an interrupted pull resumes.
  --cache-dir DIR  use another directory; runs at the same time can share it
  --cache-size SIZE  limit its size
  --no-cache  neither read nor write it
  --offline  use only the cache, and no network: a tag is the image that it was last
  dlrootfs cache  print its size
  dlrootfs cache prune  empty it, or with --cache-size shrink it
  dlrootfs cache list  its images: tag, digest, size on disk and last use
  dlrootfs cache rm IMAGE  remove an image, without the layers that another image needs
  dlrootfs cache add IMAGE  download an image, or several, into it, for --offline
Cached blobs are verified by their digests; a corrupt one is downloaded again. The cache may be deleted at any time. The directory must be new, empty, or a cache of dlrootfs (with its CACHEDIR.TAG); any other one is an error. As root, a cache in a directory of another user, such as a home under sudo -E, is not used.

# refresh: REFRESH: the newest image in a DIR that has one: --replace, --merge
A DIR that holds files, of an image or others, needs one of these flags. A DIR with only lost+found counts as empty:
  --replace  DIR becomes exactly the image; any other file in it is removed, and so is a repository of -g. If DIR has no json of an image, a notice counts its files (up to 1000). The new rootfs is built beside DIR and takes its place in one step: after an error DIR is as it was
  --replace --dry-run  changes nothing: exit code 0 says that DIR is up to date, 9 that a pull would change it, and why
  --replace=always  the same, even if DIR is the image already
  --merge  the image is unpacked over the files of DIR: files of the same name are replaced, the others stay
  dlrootfs verify IMAGE -d DIR  prints the differences to the image, and changes nothing
--replace does nothing if the tag is the same image as before and DIR is unchanged. DIR is unchanged if its files have the same inode, type, mode, owner, size and times as after the pull. No content is read: the time of the last change (ctime) shows each write. The cache keeps these values, where no container can change them. If it has none, as after a pull without --replace, DIR is built again.
Layers in the cache are not downloaded again: a refresh downloads only those that are new in the image. The original line "Downloading layers:" is printed all the same.
For cron, dlrootfs IMAGE -d DIR --replace --dry-run -q || dlrootfs IMAGE -d DIR --replace -q prints DIR if it was changed, and nothing if it was not. With --json the field changed says it.
--replace refuses /, mount points, home directories and directories of the system. It also refuses a DIR in which a mount point, the working directory or the cache is.

# rootless: ROOTLESS: pull, enter and delete as a plain user: --userns
A pull needs no root. Without --userns all files belong to the user. Other owners, setuid bits, capabilities and devices are not restored, and a notice counts them. It counts the owner root too: such files are root's again inside unshare -r, and only there.
  dlrootfs alpine  pull into ./rootfs
  unshare -r -R rootfs /bin/sh  enter: the user is root inside
  dlrootfs verify alpine  compare; what such a pull cannot restore is not reported
  rm -rf rootfs  delete; if a directory is read-only: unshare -r rm -rf rootfs
With --userns owners, setuid bits and capabilities are those of the image, in a user namespace. Only devices still need root. Later commands on such a DIR enter the namespace by themselves, since its files belong to ids of the user; --userns=false keeps them out:
  dlrootfs alpine --userns  pull
  unshare -r --map-auto -R rootfs /bin/sh  enter: each user of the image is there
  dlrootfs verify alpine  compare, owners included
  unshare -r --map-auto rm -rf rootfs  delete: the user may not remove what belongs to ids of the range
--userns needs newuidmap and newgidmap (Debian and Ubuntu: apt install uidmap). The user also needs ranges of ids in /etc/subuid and /etc/subgid; most systems give them to each new user. Root adds them by usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER. Ranges of two users must not overlap. unshare has --map-auto since util-linux 2.38.
If unshare is not permitted, the system allows users no namespaces: see sysctl user.max_user_namespaces and kernel.apparmor_restrict_unprivileged_userns.
An archive or a disk image (-o) has all owners and devices without --userns. With --for runc the configuration is for rootless runc, and with --userns it has the ids of the namespace. The configuration for LXC has these ids, too; such a container starts without root.

# sources: SOURCES: images on this machine: oci:, oci-archive:, docker-archive:, -
Instead of an image in a registry you can name, as in skopeo:
  oci:DIR[:TAG]  an OCI layout, as from skopeo copy docker://… oci:DIR
  oci-archive:FILE[:TAG]  a tar of an OCI layout
  docker-archive:FILE[:NAME:TAG]  an archive of docker save or podman save
  -  either archive on standard input, as in docker save alpine | dlrootfs -
Archives may be compressed. Use @0, @1 and so on instead of a tag for the first, the second image in an archive. A path cannot contain a colon. An image called oci is written library/oci:1.

# output: OUTPUT: standard output, progress, JSON, one archive
Standard output has the lines of the original: Opening a session, Image ID, a line per layer, Rootfs of IMAGE in DIR; with --add, a line Added too. They are the same whether layers are downloaded or cached. DIR/json has the JSON of the image, as in the original; --no-json omits it. Progress, notices and errors go to standard error. An error is a line error: with the reason, then a line hint: with the remedy.
  -q  only the destination, as typed; with inspect, only the digest
  --json  one object on one line at the end: digests, layers, sizes, seconds (docs/schema/summary.schema.json)
  --progress tty  bars, erased at the end; the default on a terminal that is not dumb
  --progress plain  a line every five seconds; the default elsewhere
  --progress json  one object per line on standard error, errors too (docs/schema/progress.schema.json)
  --progress none  no progress, only notices and errors
  -v  log requests without secrets, decisions, timings
  -o FILE.tar[.gz|.zst]  one archive instead of a directory; the same image gives the same bytes, and no root is needed. An existing FILE is replaced when the new one is complete
  -o -  the tar on standard output, without other lines
  -o FILE.ext4, FILE.squashfs, FILE.erofs  a disk image, as exact as the archive; ext4 needs mke2fs, squashfs needs sqfstar. --size is for ext4, --compress for erofs

# runtimes: RUNTIMES: what starts DIR: chroot, runc, LXC, systemd-nspawn
As root, chroot DIR /bin/sh runs a command in it; as a plain user, unshare -r -R DIR /bin/sh (dlrootfs help rootless). With --for a pull writes the configuration of a runtime: command, variables, user, directory and stop signal are those of the image. The pull prints the command that starts it.
  -d web/rootfs --for runc  web/config.json; runc run -b web web, as a plain user with --root DIR too. It has a terminal if the pull runs on one
  -d web --for runc  ./config.json, beside web: for a second container use another directory, as -d app/rootfs
  -d /var/lib/lxc/web/rootfs --for lxc  /var/lib/lxc/web/config; lxc-execute -n web
  -d web --for lxc  web.lxc, beside a DIR of another name than rootfs; lxc-execute -n web -f web.lxc
  -d /var/lib/machines/web --for nspawn  /var/lib/machines/web.nspawn; systemd-nspawn -M web
  --prepare  also adds missing mount points, and fills missing or empty /etc/hosts, /etc/hostname and /etc/resolv.conf
  --rootless  with --for runc: for a plain user, also when root runs the pull
  --force  replaces configurations that are there
An image whose command is an init, such as /sbin/init, boots: by lxc-start -n web instead of lxc-execute, or by systemd-nspawn, whose file has Boot=yes. The pull prints the command that fits.
A container of runc or LXC has no network but loopback. For the network of the host remove network from namespaces in config.json. For the bridge of LXC use the lines that are comments in its file.

# disks: DISK IMAGES: disk images, and what starts them in qemu
A file name that ends in .ext4, .squashfs or .erofs is a disk image of that format, without a partition table. It is made by any user, with the owners of the image, and the same image gives the same bytes: UUID, times and hash seed come from its digest, and from what --add, --path, --exclude and --for change. A notice counts the attributes that the format does not have.
  -o FILE.ext4  by mke2fs 1.47.1 or newer, with libarchive, and debugfs (Debian: e2fsprogs)
  --size 2G  size of the ext4; without it a tenth stays free, and 16 MiB at least
  -o FILE.squashfs  by sqfstar 4.6 or newer (Debian: squashfs-tools)
  -o FILE.erofs  by dlrootfs itself: the fastest, and no program is needed. The kernel has to be 5.4 or newer, 5.15 if the image has files with holes
  --compress lz4  a compressed erofs, by mkfs.erofs 1.8 or newer (Debian: erofs-utils); lz4hc, deflate, lzma and zstd are smaller
  --for qemu  also FILE.qemu.sh: set KERNEL, and INITRD if the kernel needs one, and run it
If the command of the image is no init, --for adds /.dlrootfs-init to the disk. It mounts /dev, /proc and /sys, runs the command with the variables, directory and user of the image, prints "exit code: N" and ends the machine. It needs /bin/sh and env in the image.

# parts: PARTS: a part of an image, and files of your own over it: --path, --exclude, ls, cat, --add
With --path a pull, -o, verify and diff take only that file or directory, with all that is in it, and the directories above. All layers are verified and applied as a whole first: a file that a later layer replaces or deletes is replaced or deleted. Of a file with several names, the first name that is taken has the content.
  --path etc/ssl  from the root of the image; with or without a slash before it
  --path bin/sh  where bin is a symlink to usr/bin: that symlink, and usr/bin/sh. A symlink at the end is taken as it is, unless a slash follows
  --exclude "*.pyc"  a name at any level
  --exclude usr/share/doc  a path from the root, since it has a slash, with all that is in it
  --exclude "usr/share/man/**"  the content of a directory, not the directory; ** is any number of names
  --exclude "[!a-z]?/"  sets, any one character, a slash at the end for directories only
  dlrootfs cat IMAGE PATH  the content of a file; symlinks are followed inside the image
  dlrootfs ls IMAGE [PATH]  the names in a directory; with -l mode, owner, size and time too
A path that the image does not have is an error (exit code 3); a pattern that matches nothing is not. DIR/json says which part DIR holds (dlrootfs.part). A part cannot be pulled with -g.
With --add files of this machine are a last layer of the image, in every output: they replace files of it, and verify with the same flags counts them as part of it.
  --add FILE:/usr/local/bin/  a file; without the slash at the end, or without a destination in /, under that name
  --add DIR  the content of a directory, over the root; --add DIR:/srv/app over /srv/app
  --add FILE.tar.gz:/opt  the content of an archive; it may delete files, as layers do (.wh.NAME)
  --add-owner 1000:1000  owner of all of it; default: root, and for an archive its own owners
Modes and times are those of the files. Directories of the system, such as /etc and /usr/lib, keep the modes, owners and links of the image.

# comparison: COMPARISON: what verify and diff compare, and what they print
verify prints one line for each path that differs, in the order of the paths, and nothing if DIR is the image:
  missing PATH  the image has it, DIR has not
  extra PATH  DIR has it, the image has not
  changed PATH: …  such as mode 0755→0777, owner 0:0→1000:1000, size 5→6: the image, then DIR
A directory that is missing or extra is one line, with a slash at its end. verify compares type, mode, owner, size, time, target of symlinks, device numbers, hard links, extended attributes and access lists. Times are as exact as the file system keeps them. With --contents every byte is compared too. If a file in a directory was made or removed, the time of the directory is not reported.
verify does not report the files json, layersize and .git of a pull, and an empty lost+found of root. With --prepare it does not report the additions of a pull with --prepare; with --path and --exclude, files outside that part. A plain user may have other owners, no setuid bits, devices and capabilities, unless --userns is given. A notice counts the files that the user may not read. Another one names mount points: files that are mounted in DIR are not compared.
diff compares two images in the same way, without a directory. It prints removed PATH, added PATH, changed PATH: the first image, then the second. Contents of files with equal sizes are compared; layers that both images have are not downloaded for that. Credentials of the command line are for one registry: for two, log in to both.
A digest in the name of an image (…@sha256:…) that is cached needs no network. verify changes nothing in DIR, follows no symlink in it, and opens only regular files. With --json one object is printed (docs/schema/verification.schema.json, docs/schema/differences.schema.json). With -q nothing is printed: the exit code is the result.

# git: GIT LAYERS: the branches of -g
With -g the rootfs is a git repository with one commit and one branch per layer. Branch layer<n>_<id> is based on layer<n-1>_… and adds the files of layer n; the last branch is checked out. So git diff layer0_… layer1_… shows the changes of layer 1.
Git does not store owners, exact modes, times, extended attributes, hard links, devices and empty directories. So git checkout restores only what git stores. For the exact state after a layer see dlrootfs help layers.
The repository is written into a new rootfs. git, which must be installed, makes the branches, and reads no configuration of yours. A repository that DIR has is never read: --replace removes it, with branches and commits of yours, as any other files. A container can write to /.git of its rootfs: docs/git.md says how to look at it then.

# layers: LAYERS: only the first layers of an image: --layers
With --layers a pull takes only the first layers of the image. DIR is exactly the state after them, as after a pull of an image that has no others. Layers in the cache are not downloaded again.
  --layers 2  the first two layers; 0 is an empty directory
  --layers 3f5ae1  up to the layer whose id begins with 3f5ae1; dlrootfs inspect IMAGE lists the ids. Up to six decimal digits are a number of layers
  dlrootfs IMAGE --layers 2 -d DIR --replace  DIR goes back to the state after two layers; without --layers it is all of the image again
  dlrootfs verify IMAGE --layers 2 -d DIR  compare with these layers; without the flag a notice says which layers DIR holds, by its json
  dlrootfs diff IMAGE IMAGE --layers 1 --layers 2  the changes of the second layer
It can be used with -g, -o, --path, --exclude and cat. DIR/json is the JSON of the last of these layers. The configuration that --json prints, and that --for uses, is the image's. With --json, imageLayers is the number of all layers.

# environment: ENVIRONMENT: environment variables
  DLROOTFS_CREDS  credentials, as for -u
  DLROOTFS_REGISTRY_TOKEN  bearer token, as for --registry-token
  REGISTRY_AUTH_FILE  credentials file, as for --authfile
  DOCKER_AUTH_CONFIG  content of a credentials file
  DOCKER_CONFIG  directory of docker's config.json
  CONTAINERS_REGISTRIES_CONF  file to read instead of registries.conf
  XDG_CACHE_HOME  the cache is its directory dlrootfs (default: ~/.cache)
  XDG_RUNTIME_DIR, XDG_CONFIG_HOME  directories of the configuration of podman and skopeo
  HTTP_PROXY, HTTPS_PROXY, NO_PROXY  proxies, in upper or lower case: dlrootfs help registries
  NODE_EXTRA_CA_CERTS  file with more CAs to trust
  SSL_CERT_FILE, SSL_CERT_DIR  CAs instead of those of the system's store
  HOME  place of ~/.cache, ~/.config and ~/.docker
  PATH  where credential helpers, gpgv and the programs for disk images are looked up
  TERM  dumb: plain lines instead of bars. There are no colours, so NO_COLOR has no effect

# json: JSON: fields of the JSON output
With --json a pull prints one object. Ids are 64 hex digits, sizes are in bytes. Schemas are in docs/schema.
  reference  NAME:TAG, or NAME@DIGEST
  id  the image's id: the digest of its config, without the algorithm
  digest  digest of the manifest; of a layer, of its compressed blob. Absent with version 1 of the protocol
  platform  an object with os, architecture and, where there are any, variant and osVersion
  layers  array, base layer first, of objects with id, digest, diffID, size (compressed) and entries (of the tar)
  imageLayers  number of layers of the image: with --layers it may be larger than that of layers
  config  the image's configuration as the registry has it
  destination  the directory or file as typed
  added  values of --add, as typed
  changed  false if DIR was the image already, and nothing was done; with --dry-run, true if a pull would change DIR
  notRestored  numbers of attributes and files that could not be restored: owners, devices, xattrs, capabilities, setuid, times, modes, collisions, ignored
  bytes  bytes of compressed layers from the cache and from the network
  seconds  durations by stage (resolve, layers) and in total
inspect --json and --dry-run --json have reference to config, bytes, and:
  indexDigest  digest of the index that names the images of all platforms
  mediaType  of the manifest; of a layer
  platforms  all that the reference offers
  signers  with flags that demand a signature: the valid ones, each with signed (the digest of the manifest or index), place, key, or identity and issuer, and reference
  createdBy, cached  of a layer: the command that made it, and true if it is in the cache
  rateLimit  the limits in the registry's answers
  reason  with --dry-run, if DIR is not up to date: missing, other-image, touched, unknown or always
verify --json prints reference, id, digest, destination, contents (true if they were compared), and:
  differences  array of objects with path, kind (missing, extra, changed), type and changes
  changes  array of objects with what, name (of an attribute), expected and found
  unread  paths that this user may not read
  mounted  paths of the image at which something is mounted
diff --json prints images (two objects with reference, id and digest) and differences, whose kind is removed, added or changed.
cache --json prints directory, bytes (on disk), blobs and partials; with prune and rm, those that were removed. cache list --json prints an array of objects with reference, digest, bytes and lastUsed. tags --json prints an array of strings.
With --progress json each line on standard error is an object with a type:
  session  a session starts: name
  image  the image is found: id, layers
  layer-start  index, cached, and resumed: bytes that an earlier run left
  layer-progress  index, received: bytes of the blob so far
  layer-fetched, layer-apply  index: the blob is complete, unpacking starts
  layer-entries  index, entries (unpacked so far; about once a second)
  layer-applied  index, entries
  disk-entries  entries (taken by the program of a disk image; about once a second) and total
  runtime-config  file that --for wrote, and command that starts the container
  notice, debug  message
  done  reference, destination, and added: sources (values of --add, as typed) and paths (their number)
  error  exitCode, code (a stable name), message, hint, and kept: true if the next run resumes the download

# exit-codes: EXIT STATUS: meaning of the exit code
  0  done
  1  a bug in dlrootfs
  2  usage: wrong flags, arguments or settings
  3  image, tag or platform not found
  4  not authorized
  5  network: the registry cannot be reached, or its answer is not one of a registry
  6  integrity: a digest is wrong, manifest, config or layer are malformed, a signature is missing or wrong, or policy.json refuses the image
  7  destination (or git): it cannot be read or written
  8  rate limit of the registry
  9  verify or diff found differences, or --replace --dry-run a DIR that is not up to date
  129, 130, 141, 143  ended by SIGHUP, SIGINT, SIGPIPE, SIGTERM
`;

export const topics: Readonly<Record<string, Topic>> = Object.fromEntries(
  TEXT.trim()
    .split('\n\n')
    .map((text) => topicOf(text)),
);

function topicOf(text: string): readonly [name: string, topic: Topic] {
  const [head = '', ...lines] = text.split('\n');
  const [, name, title, summary] = /^# (.*?): (.*?): (.*)$/.exec(head) as unknown as readonly string[];
  const paragraphs: (string | [term: string, meaning: string][])[] = [];
  for (const line of lines) {
    const [, term, meaning] = /^ {2}(.*?) {2}(.*)$/.exec(line) ?? [];
    const last = paragraphs.at(-1);
    if (term === undefined) paragraphs.push(line);
    else if (typeof last === 'object') last.push([term, meaning!]);
    else paragraphs.push([[term, meaning!]]);
  }
  return [name!, { title: title!, summary: summary!, paragraphs }];
}

export const topicNames: readonly string[] = Object.keys(topics);
