import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { FakeRegistry } from '../support/fake-registry.ts';
import { LocalServer } from '../support/local-server.ts';
import { Scratch, runProgram } from '../support/program.ts';

// Mistakes of users in a hurry, or used to other tools. Each error names the mistake, and its hint the
// remedy. A changed text must be read here as a sentence.

/** The digits of a digest. */
const hex = '0a1b'.repeat(16);

const mistakes: readonly (readonly [line: string, exitCode: number, error: string, hint: string])[] = [
  ['pull alpine', 2, 'dlrootfs has no command pull', 'write dlrootfs alpine'],
  [
    'run alpine sh',
    2,
    'dlrootfs has no command run',
    'dlrootfs starts no containers: write dlrootfs alpine, then chroot rootfs /bin/sh',
  ],
  [
    'run',
    2,
    'dlrootfs has no command run',
    'dlrootfs starts no containers: write dlrootfs IMAGE, then chroot rootfs /bin/sh; an image of that name is library/run',
  ],
  ['ubuntu latest', 2, 'unexpected word: latest', 'write dlrootfs ubuntu:latest'],
  ['ubuntu 14.04', 2, 'unexpected word: 14.04', 'write dlrootfs ubuntu:14.04'],
  ['ubuntu dir', 2, 'unexpected word: dir', 'write -d dir for that directory, or ubuntu:dir for that tag'],
  ['ubuntu ./dir', 2, 'unexpected word: ./dir', 'write -d ./dir for that directory'],
  ['ubuntu:1 dir', 2, 'unexpected word: dir', 'write -d dir for that directory'],
  ['alpine inspect', 2, 'unexpected word: inspect', 'write dlrootfs inspect alpine'],
  ['insepct alpine', 2, 'dlrootfs has no command insepct', 'did you mean inspect?'],
  ['alpine --replace always', 2, 'unexpected word: always', 'write --replace=always'],
  [
    'alpine --replace=bogus',
    2,
    '--replace takes no value but =always, not "bogus"',
    'write --replace, or --replace=always',
  ],
  ['alpine -g true', 2, 'unexpected word: true', 'write =true behind a flag, as in --tls-verify=true'],
  [
    '--tls-verify false alpine',
    2,
    'unexpected word: alpine',
    'write =false behind a flag, as in --tls-verify=false',
  ],
  ['save alpine', 2, 'dlrootfs has no command save', 'write dlrootfs alpine -o FILE.tar'],
  ['export alpine alpine.tar', 2, 'dlrootfs has no command export', 'write dlrootfs alpine -o alpine.tar'],
  [
    'alpine -p linux/arm64',
    2,
    'unknown flag: -p',
    'use --platform OS/ARCH for a platform, --password-stdin for a password; dlrootfs starts no containers',
  ],
  [
    'alpine@abc123',
    2,
    'invalid image name "alpine@abc123": bad digest "abc123": it must be algorithm:hex, as sha256:…',
    'write IMAGE@sha256: and 64 hex digits; dlrootfs inspect -q IMAGE prints the digest',
  ],
  [
    `localhost:5000/app:1@${hex}`,
    2,
    `invalid image name "localhost:5000/app:1@${hex}": bad digest "${hex}": it must be algorithm:hex, as sha256:…`,
    `write localhost:5000/app:1@sha256:${hex}`,
  ],
  [
    `alpine@sha256:${hex.toUpperCase()}`,
    2,
    `invalid image name "alpine@sha256:${hex.toUpperCase()}": bad digest "sha256:${hex.toUpperCase()}": its hex digits must be lower case`,
    `write alpine@sha256:${hex}`,
  ],
  [
    `alpine:sha256:${hex}`,
    2,
    `invalid image name "alpine:sha256:${hex}": bad tag "sha256:${hex}": letters, digits, "_", "." and "-" are allowed, "." and "-" not first`,
    `write alpine@sha256:${hex}`,
  ],
  [
    'bob:secret@abc123',
    2,
    'invalid image name "***@abc123": only a digest can follow the "@"',
    'give credentials by --user or DLROOTFS_CREDS, and the name without them',
  ],
  ['diff alpine:3.19', 2, 'diff needs two images', 'write dlrootfs diff IMAGE1 IMAGE2'],
  [
    'login',
    2,
    'dlrootfs has no command login',
    'log in with docker, podman or skopeo, or use -u USER; an image of that name is library/login',
  ],
  [
    'images',
    2,
    'dlrootfs has no command images',
    'write dlrootfs cache list; an image of that name is library/images',
  ],
  [
    'alpine --insecure',
    2,
    'unknown flag: --insecure',
    'use --tls-verify=false, or --plain-http for a registry without TLS',
  ],
  ['alpine --platform arm64', 2, 'platform "arm64" is not os/arch[/variant]', 'write --platform linux/arm64'],
  [
    'alpine --platform aarch64',
    2,
    'platform "aarch64" is not os/arch[/variant]',
    'write --platform linux/arm64',
  ],
  [
    'alpine --platform x86_64',
    2,
    'platform "x86_64" is not os/arch[/variant]',
    'write --platform linux/amd64',
  ],
  [
    'alpine --platform armhf',
    2,
    'platform "armhf" is not os/arch[/variant]',
    'write --platform linux/arm/v7',
  ],
  [
    'alpine --platform arm/v6',
    2,
    'platform "arm/v6" is not os/arch[/variant]',
    'write --platform linux/arm/v6',
  ],
  [
    'alpine --platform linux',
    2,
    'platform "linux" is not os/arch[/variant]',
    'write the architecture too, as in --platform linux/amd64',
  ],
  ['alpine --output-dir x', 2, 'unknown flag: --output-dir', 'use -d DIR'],
  ['alpine --username bob', 2, 'unknown flag: --username', 'use -u USER, which asks for the password'],
  ['alpine --arch arm64', 2, 'unknown flag: --arch', 'use --platform OS/ARCH, as in --platform linux/arm64'],
  [
    'cp alpine:/etc/os-release .',
    2,
    'dlrootfs has no command cp',
    'write dlrootfs cat alpine /etc/os-release',
  ],
  [
    'cp alpine:3.20:/etc/hosts .',
    2,
    'dlrootfs has no command cp',
    'write dlrootfs cat alpine:3.20 /etc/hosts',
  ],
  ['update alpine', 2, 'dlrootfs has no command update', 'write dlrootfs alpine --replace'],
  ['enter rootfs', 2, 'dlrootfs has no command enter', 'write chroot rootfs /bin/sh'],
  ['delete rootfs', 2, 'dlrootfs has no command delete', 'write rm -rf rootfs'],
  ['alpine --pull always', 2, 'unknown flag: --pull', 'use --replace, which takes the newest image'],
  ['alpine --tag 3', 2, 'unknown flag: --tag', 'write the tag behind the image, as in alpine:3.20'],
  ['alpine --plaform x', 2, 'unknown flag: --plaform', 'did you mean --platform?'],
  ['alpine --frobnicate', 2, 'unknown flag: --frobnicate', 'dlrootfs --help --all lists all flags'],
  ['alpine -d', 2, 'flag needs an argument: -d', 'write -d DIR'],
  ['alpine -d=', 2, '-d has an empty value', 'write -d DIR'],
  ['alpine -j 0', 2, '-j takes a whole number from 1 up, not "0"', 'write a number, as in -j 3'],
  ['alpine --jobs 0', 2, '--jobs takes a whole number from 1 up, not "0"', 'write a number, as in --jobs 3'],
  [
    'alpine --cache-size lots',
    2,
    '--cache-size takes a size, not "lots"',
    'write a size, as in --cache-size 500M or --cache-size 10G',
  ],
  [
    'alpine --for docker',
    2,
    '--for takes one of runc, lxc, nspawn, qemu, not "docker"',
    'write one of them, as in --for runc',
  ],
  [
    'alpine -o x.ext4 --for firecracker',
    2,
    '--for does not know firecracker any more',
    'make the disk with --for qemu, and take the JSON from "Disk for Firecracker" in docs/recipes.md',
  ],
  [
    'alpine -u bob',
    2,
    '-u has no password, and this is not a terminal to ask for it',
    'pipe the password to --password-stdin, or set DLROOTFS_CREDS=USER:PASSWORD',
  ],
  ['alpine -o x.tar -d y', 2, 'cannot use -d with -o', 'leave out -d, or -o for a directory'],
  [
    'alpine --output x.tar --dest y',
    2,
    'cannot use --dest with --output',
    'leave out --dest, or --output for a directory',
  ],
  [
    'alpine --add id.pub /root/.ssh/authorized_keys',
    2,
    'unexpected word: /root/.ssh/authorized_keys',
    'write --add id.pub:/root/.ssh/authorized_keys',
  ],
  ['alpine --add app --owner 1000', 2, 'unknown flag: --owner', 'use --add-owner UID:GID'],
  [
    'alpine --add app --chmod 600',
    2,
    'unknown flag: --chmod',
    'change the mode of the file itself, by chmod: --add keeps it',
  ],
  ['alpine --disk vm.ext4', 2, 'unknown flag: --disk', 'use -o FILE.ext4, FILE.squashfs or FILE.erofs'],
  [
    'alpine -o vm --format ext4',
    2,
    'unknown flag: --format',
    'use -o with an ending, as FILE.tar, FILE.tar.zst or FILE.ext4; for JSON use --json',
  ],
  ['alpine --dtest x', 2, 'unknown flag: --dtest', 'did you mean --dest?'],
  ['alpine --overlay x', 2, 'unknown flag: --overlay', 'dlrootfs --help --all lists all flags'],
  ['alpine -qx', 2, 'unknown flag: -qx', 'dlrootfs --help --all lists all flags'],
  ['alpine -j4', 2, 'unknown flag: -j4', 'write -j 4'],
  ['alpine -drootfs', 2, 'unknown flag: -drootfs', 'write -d rootfs'],
  ['alpine -qj', 2, 'flag needs an argument: -j', 'write -j N'],
  ['alpine --dest-dir x', 2, 'unknown flag: --dest-dir', 'use -d DIR'],
  [
    'alpine -f',
    2,
    'unknown flag: -f',
    'use -o FILE.tar for an archive, --replace for a DIR that holds something, --force for existing configurations',
  ],
  [
    'search localhost:5000/team/app',
    2,
    'dlrootfs has no command search',
    'write dlrootfs tags localhost:5000/team/app; search for a name on the web page of the registry',
  ],
  [
    'alpine -o x.tar --for lxc',
    2,
    'cannot use --for lxc with -o: it needs a directory',
    'use -d DIR; --for qemu is for a disk (-o FILE.ext4)',
  ],
  [
    'alpine --for runc -o x.ext4',
    2,
    'cannot use --for runc with -o: it needs a directory',
    'use -d DIR; --for qemu is for a disk (-o FILE.ext4)',
  ],
  [
    'alpine --compress zstd --for qemu -o x.ext4',
    2,
    '--compress is for an erofs, not for ext4',
    'use -o FILE.erofs',
  ],
  [
    'alpine -o x.tar --for qemu --compress zstd',
    2,
    '--compress is for an erofs, not for an archive',
    'use -o FILE.erofs',
  ],
  [
    'search ubuntu',
    2,
    'dlrootfs has no command search',
    'search on the web page of the registry, as https://hub.docker.com/search?q=ubuntu; dlrootfs tags REPOSITORY lists tags',
  ],
  [
    'man',
    2,
    'dlrootfs has no command man',
    'write man dlrootfs, or dlrootfs --help --all; an image of that name is library/man',
  ],
  [
    'alpine:3 ubuntu:4',
    2,
    'unexpected word: ubuntu:4',
    'a pull takes one image: write dlrootfs alpine:3 -d DIR and dlrootfs ubuntu:4 -d DIR2, or to compare them dlrootfs diff alpine:3 ubuntu:4',
  ],
  [
    'alpine ghcr.io/team/app',
    2,
    'unexpected word: ghcr.io/team/app',
    'a pull takes one image: write dlrootfs alpine -d DIR and dlrootfs ghcr.io/team/app -d DIR2, or to compare them dlrootfs diff alpine ghcr.io/team/app',
  ],
  ['help replcae', 2, 'no help on replcae', 'did you mean --replace?'],
  ['help --replcae', 2, 'unknown flag: --replcae', 'did you mean --replace?'],
  [
    'alpine -o x.ext4 --size 20',
    2,
    '--size 20 is 20 bytes, too few for a disk',
    'write the unit, as in --size 20M',
  ],
  [
    'alpine -o x.qcow2',
    2,
    'cannot tell the format of x.qcow2 by its name',
    'write -o x.ext4, then qemu-img convert -O qcow2 x.ext4 x.qcow2',
  ],
  [
    'alpine -o x.img',
    2,
    'cannot tell the format of x.img by its name',
    'write -o x.ext4, then mv x.ext4 x.img',
  ],
  [
    'alpine --platform linux-arm64',
    2,
    'platform "linux-arm64" is not os/arch[/variant]',
    'write --platform linux/arm64',
  ],
  ['unpack ghcr.io/team/app', 2, 'dlrootfs has no command unpack', 'write dlrootfs ghcr.io/team/app'],
  [
    'unpack localhost:5000/app out',
    2,
    'dlrootfs has no command unpack',
    'write dlrootfs localhost:5000/app -d out',
  ],
  [
    'alpine --rootless',
    2,
    '--rootless has no effect without --for runc',
    'add --for runc, or leave it out: a pull needs no root (dlrootfs help rootless)',
  ],
  ['inspect alpine -q --json', 2, '-q has no effect with --json', 'leave one of them out'],
  [
    'tags alpine:3.20',
    2,
    'tags takes a repository without a tag, not alpine:3.20',
    'write dlrootfs tags alpine, or dlrootfs inspect alpine:3.20',
  ],
  ['alpine --contents', 2, 'cannot use --contents with a pull', 'use it with dlrootfs verify'],
  ['inspect', 2, 'inspect needs an image', 'write dlrootfs inspect IMAGE'],
  [
    'cache empty-it',
    2,
    'unexpected word: empty-it',
    'write dlrootfs cache size, list or prune, or dlrootfs cache add IMAGE or rm IMAGE',
  ],
  ['cache clear', 2, 'unexpected word: clear', 'write dlrootfs cache prune'],
  ['cache ls', 2, 'unexpected word: ls', 'write dlrootfs cache list'],
  ['ls -la alpine', 2, 'unknown flag: -la', 'leave out a: ls lists all names, and -l the long form'],
  ['ls alpine -R', 2, 'unknown flag: -R', 'use dlrootfs IMAGE -o - | tar tv'],
  [
    'alpine --key cosign.pub',
    2,
    'unknown flag: --key',
    'use --verify-key FILE for signatures of images, --key-file FILE with --cert-file FILE for TLS',
  ],
  ['alpine --copy x:/y', 2, 'unknown flag: --copy', 'use --add SRC:DEST'],
  ['alpine --add x --chown 1:1', 2, 'unknown flag: --chown', 'use --add-owner UID:GID'],
  ['inspect alpine --raw', 2, 'unknown flag: --raw', 'use --json'],
  ['cache rm', 2, 'cache rm needs an image', 'write dlrootfs cache rm IMAGE'],
  [
    'rmi alpine',
    2,
    'dlrootfs has no command rmi',
    'write dlrootfs cache rm alpine; a rootfs is removed by rm -rf DIR',
  ],
  ['help credntials', 2, 'no help on credntials', 'did you mean credentials?'],
  [
    'help --insecure',
    2,
    'unknown flag: --insecure',
    'use --tls-verify=false, or --plain-http for a registry without TLS',
  ],
  [
    'Alpine',
    2,
    'invalid image name "Alpine": repository name "Alpine" must be lowercase',
    'write the repository as alpine',
  ],
  [
    './alpine',
    2,
    'invalid image name "./alpine": bad registry ".": expected host[:port]',
    'name an image, as in alpine; for an image on this machine write oci:DIR or docker-archive:FILE',
  ],
  [
    'alpine@sha256:abc',
    2,
    'invalid image name "alpine@sha256:abc": bad digest "sha256:abc": sha256 needs exactly 64 hex digits after the colon',
    'write IMAGE@sha256: and 64 hex digits; dlrootfs inspect -q IMAGE prints the digest',
  ],
  ['copy docker://alpine oci:x:1', 2, 'dlrootfs has no command copy', 'write dlrootfs alpine -d DIR'],
  ['export alpine -', 2, 'dlrootfs has no command export', 'write dlrootfs alpine -o -'],
  ['save alpine x.tar', 2, 'dlrootfs has no command save', 'write dlrootfs alpine -o x.tar'],
  ['unpack layout:1 bundle', 2, 'dlrootfs has no command unpack', 'write dlrootfs oci:layout:1 -d bundle'],
  ['manifest inspect alpine', 2, 'dlrootfs has no command manifest', 'write dlrootfs inspect alpine'],
  ['image inspect alpine', 2, 'dlrootfs has no command image', 'write dlrootfs inspect alpine'],
  ['image pull alpine', 2, 'dlrootfs has no command pull', 'write dlrootfs alpine'],
  ['digest alpine', 2, 'dlrootfs has no command digest', 'write dlrootfs inspect -q alpine'],
  ['validate alpine', 2, 'dlrootfs has no command validate', 'write dlrootfs verify alpine -d DIR'],
  [
    'catalog ghcr.io',
    2,
    'dlrootfs has no command catalog',
    'ask the registry itself, as in curl https://REGISTRY/v2/_catalog',
  ],
  [
    'alpine /bin/sh',
    2,
    'unexpected word: /bin/sh',
    'dlrootfs starts no containers: leave /bin/sh out, then run chroot rootfs /bin/sh',
  ],
  [
    'alpine -p 80:80',
    2,
    'unknown flag: -p',
    'use --platform OS/ARCH for a platform, --password-stdin for a password; dlrootfs starts no containers',
  ],
  ['verify alpine rootfs', 2, 'unexpected word: rootfs', 'write -d rootfs for that directory'],
  [
    'verify -d rootfs',
    2,
    'verify needs an image',
    'write dlrootfs verify IMAGE -d rootfs, with the image that was pulled into it',
  ],
  ['verify', 2, 'verify needs an image', 'write dlrootfs verify IMAGE [-d DIR]'],
  ['cat alpine:/etc/passwd', 2, 'cat needs a path', 'write dlrootfs cat alpine /etc/passwd'],
  [
    'docker-daemon:alpine:3',
    2,
    'cannot read docker-daemon: images',
    'write docker save alpine:3 | dlrootfs -',
  ],
  [
    'containers-storage:alpine',
    2,
    'cannot read containers-storage: images',
    'write podman save alpine | dlrootfs -',
  ],
  ['dir:/x', 2, 'cannot read dir: images', 'write skopeo copy dir:/x oci:DIR, then dlrootfs oci:DIR'],
  [
    'https://hub.docker.com/_/alpine',
    2,
    'invalid image name "https://hub.docker.com/_/alpine": it starts with "https://"',
    'write it without: alpine',
  ],
  [
    'hub.docker.com/r/bitnami/redis',
    2,
    'invalid image name "hub.docker.com/r/bitnami/redis": hub.docker.com is the web page of Docker Hub, no registry',
    'write bitnami/redis',
  ],
  ['--dest x', 2, 'no image is named', 'write dlrootfs IMAGE[:TAG] -d DIR'],
];

test('likely mistakes have an error and a hint', async (t) => {
  using scratch = new Scratch();
  for (const [line, exitCode, error, hint] of mistakes) {
    await t.test(line, async () => {
      const result = await runProgram(line.split(' '), { cwd: scratch.path });
      assert.deepEqual(result, { exitCode, stdout: '', stderr: `error: ${error}\nhint: ${hint}\n` });
    });
  }
});

test('a directory in the place of an image: verify is the command for it', async (t) => {
  using scratch = new Scratch();
  await using registry = await FakeRegistry.start();
  registry.push('team/app', '1', { layers: [] });
  mkdirSync(scratch.join('team'));
  mkdirSync(scratch.join(`${registry.host}/none`), { recursive: true });
  const image = `${registry.host}/team/app:1`;
  // No server answers here, so the name may be one of an image.
  mkdirSync(scratch.join('nowhere.invalid/web'), { recursive: true });
  const rows: readonly (readonly [argv: readonly string[], hint: string | RegExp])[] = [
    [
      ['diff', image, 'nowhere.invalid/web', '--retry', '0'],
      /^check the .*; to compare the directory nowhere\.invalid\/web with an image write dlrootfs verify \S+:1 -d nowhere\.invalid\/web$/,
    ],
    [
      ['verify', './team'],
      './team is a directory: to compare it with an image write dlrootfs verify IMAGE -d ./team',
    ],
    [
      ['diff', image, './team/'],
      `./team/ is a directory: to compare it with an image write dlrootfs verify ${image} -d ./team/`,
    ],
    // An image could have this name.
    [
      ['diff', image, `${registry.host}/none`],
      `${registry.host}/none is a directory: to compare it with an image write dlrootfs verify ${image} -d ${registry.host}/none`,
    ],
  ];
  for (const [argv, hint] of rows) {
    await t.test(argv.join(' '), async () => {
      const { stderr } = await runProgram(argv, { cwd: scratch.path, environment: { HOME: scratch.path } });
      assert.match(stderr, /^error: .*\nhint: .*\n$/);
      const found = /^hint: (.*)$/m.exec(stderr)![1]!;
      if (typeof hint === 'string') assert.equal(found, hint);
      else assert.match(found, hint);
    });
  }
});

test('mistakes about a registry, a host, a certificate and files', async (t) => {
  using scratch = new Scratch();
  await using registry = await FakeRegistry.start();
  await using secure = await FakeRegistry.start({ tls: true });
  registry.push('team/app', '1', { layers: [] });
  secure.push('team/app', '1', { layers: [] });
  mkdirSync(scratch.join('full'));
  writeFileSync(scratch.join('file'), '');
  const { host } = registry;
  registry.push('team/many', '24.04', { layers: [] });
  registry.push('team/many', 'edge', { layers: [] });
  registry.push('team/gone', '1', { layers: [] });
  registry.fault({ path: /\/team\/gone\/manifests\//, times: Infinity, status: 404 });
  const rows: readonly (readonly [argv: readonly string[], exitCode: number, stderr: RegExp])[] = [
    [
      [`${host}/team/app:2`, '-d', "it's", '--no-cache'],
      3,
      /^error: .*\/team\/app has no tag 2 \(.*404.*\)\nhint: write dlrootfs 127\.0\.0\.1:\d+\/team\/app:1 -d 'it'\\''s' --no-cache; check the tag: dlrootfs tags 127\.0\.0\.1:\d+\/team\/app lists them/,
    ],
    [
      ['inspect', '--no-cache', `${host}/team/app`],
      3,
      /\nhint: write dlrootfs inspect --no-cache \S+\/team\/app:1; /,
    ],
    [
      ['cat', `docker://${host}/team/many:24.4`, '/x'],
      3,
      /\nhint: write dlrootfs cat docker:\S+\/many:24\.04 \/x; /,
    ],
    [['cache', 'add', `${host}/team/many:24.4`], 3, /\nhint: write dlrootfs cache add \S+\/many:24\.04; /],
    [[`${host}/team/many:3`], 3, /\nhint: check the tag: /],
    // The registry lists the tag.
    [[`${host}/team/gone:1`], 3, /\nhint: check the tag: /],
    [[`${host}/team/app:2`, '-d', `${host}/team/app:2`], 3, /\nhint: name the tag 1; check the tag: /],
    [[`${host}/team/app:2`, '-u', 'me:secret'], 3, /\nhint: name the tag 1; check the tag: (?!.*secret)/],
    [['diff', `${host}/team/app:1`, `${host}/team/app:2`], 3, /\nhint: name the tag 1; check the tag: /],
    [
      [`${secure.host}/team/app:1`, '--ca-file', 'file'],
      2,
      /^error: cannot use file for --ca-file: it has no certificate\nhint: name a PEM file/,
    ],
    [[`${host}/team/none:1`], 3, /^error: .*team\/none does not exist \(.*\nhint: check the name; private/],
    [
      ['nowhere.invalid/app', '--retry', '0'],
      5,
      /^error: cannot resolve nowhere\.invalid: .*\nhint: check the (?:name of the registry, the )?network and its DNS; behind a proxy, set HTTPS_PROXY \(HTTP_PROXY is for plain http\)\n/,
    ],
    [
      [`${secure.host}/team/app:1`],
      5,
      /^error: cannot trust the certificate of .*: its authority is unknown on this machine\nhint: put its authority into .*, name it by --ca-file, or /,
    ],
    [
      ['127.0.0.1:1/app', '--retry', '0'],
      5,
      /^error: cannot connect to 127\.0\.0\.1:1: connection refused\nhint: /,
    ],
    [[`${host}/team/app:1`, '-d', 'file'], 7, /^error: .*file.*\nhint: .*-d/],
    [
      [`${host}/team/app:1`, '-o', 'none/x.tar'],
      7,
      /^error: cannot write none\/x\.tar: .*\nhint: name a file in a directory that exists/,
    ],
    [[`${host}/team/app:1`, '-o', 'full/'], 2, /^error: .*full\/.*\nhint: (?!.*-d\b)/],
    [
      [`${host}/team/app:1`, '-o', 'x.ext4', '--size', '99999T'],
      7,
      /^error: cannot write x\.ext4: .*\nhint: try a smaller --size, leave it out, or use -o FILE\.tar\n/,
    ],
    [['oci:none'], 3, /^error: none does not exist\nhint: check the path/],
    [
      ['checkout', 'layer1', '-d', 'rootfs', '--force'],
      2,
      /^error: dlrootfs has no command checkout\nhint: .*dlrootfs IMAGE --layers 2 -d DIR --replace/,
    ],
    [['checkout', `layer11_${'ab'.repeat(32)}`], 2, /^error: .*\nhint: .*--layers 12 -d DIR/],
    [['checkout', 'mine'], 2, /^error: .*\nhint: .*--layers N -d DIR.*git checkout BRANCH/],
    [
      [`${host}/team/app:1`, '--dry-run', '--layers', '1'],
      2,
      /^error: --layers has no effect with --dry-run\n/,
    ],
  ];
  for (const [argv, exitCode, stderr] of rows) {
    await t.test(argv.join(' '), async () => {
      const result = await runProgram(argv, { cwd: scratch.path, environment: { HOME: scratch.path } });
      assert.equal(result.exitCode, exitCode, result.stderr);
      assert.match(result.stderr.replaceAll(/^(?:notice|retry).*\n/gm, ''), stderr);
      assert.doesNotMatch(result.stderr, /use-system-ca|0\.0\.0\.0|E[A-Z]+: |\bat .*\.[jt]s:/);
    });
  }
});

test('flags without need and other spellings are accepted', async (t) => {
  using scratch = new Scratch();
  await using registry = await FakeRegistry.start();
  registry.push('team/app', '1', { layers: [] });
  const image = `${registry.host}/team/app:1`;
  mkdirSync(scratch.join('layout'));
  const rows: readonly (readonly [argv: readonly string[], stdout: RegExp])[] = [
    [['tags', `${registry.host}/team/app`, '-q'], /^1\n$/],
    [['cache', '-q'], /0 blobs|blobs?,/],
    [['version', '-q'], /^\d+\.\d+\.\d+\n$/],
    [['-q', 'version'], /^\d+\.\d+\.\d+\n$/],
    [['help', 'disks', '-q'], /^Disk images\n/],
    [['completion', 'bash', '-q'], /dlrootfs/],
    [[image, '-q', '--no-json', '-o', 'x.tar'], /^x\.tar\n$/],
    [[image, '-q', '--userns', '-o', 'y.tar'], /^y\.tar\n$/],
    [[`docker://${image}`, '-qd', 'one'], /^one\n$/],
    [[image, '-qvd', 'two'], /^two\n$/],
    [[image, '-vqj', '2', '-d', 'three'], /^three\n$/],
    [[image, '-qd=four'], /^four\n$/],
    [['inspect', `docker://${image}`, '-q'], /^sha256:[0-9a-f]{64}\n$/],
    [['inspect', image, '-qv'], /^sha256:[0-9a-f]{64}\n$/],
  ];
  for (const [argv, stdout] of rows) {
    await t.test(argv.join(' '), async () => {
      const environment = { XDG_CACHE_HOME: scratch.join('cache') };
      const result = await runProgram(argv, { cwd: scratch.path, environment });
      assert.equal(result.exitCode, 0, result.stderr);
      assert.match(result.stdout, stdout);
    });
  }
});

test('an image that could be a mistyped command, where there is no such image', async (t) => {
  using scratch = new Scratch();
  await using registry = await FakeRegistry.start();
  registry.push('library/verson', 'latest', { layers: [] });
  const rows: readonly (readonly [argv: readonly string[], exitCode: number, hint: RegExp])[] = [
    [['verson', '--offline'], 3, /^did you mean dlrootfs version\? If not, /],
    [['hlep', '--offline'], 3, /^did you mean dlrootfs help\? If not, /],
    [['alpine', '--offline'], 3, /^(?!did you mean)/],
    [['verson', '--offline', '-d', 'x'], 3, /^(?!did you mean)/],
    [['team/verson', '--offline'], 3, /^(?!did you mean)/],
  ];
  for (const [argv, exitCode, hint] of rows) {
    await t.test(argv.join(' '), async () => {
      const result = await runProgram(argv, { cwd: scratch.path, environment: { HOME: scratch.path } });
      assert.equal(result.exitCode, exitCode, result.stderr);
      assert.match(/^hint: (.*)$/m.exec(result.stderr)![1]!, hint);
    });
  }
  const pulled = await runProgram(['verson', '--mirror', registry.host, '-q'], { cwd: scratch.path });
  assert.deepEqual([pulled.exitCode, pulled.stdout], [0, './rootfs\n'], pulled.stderr);
});

test('a captive portal is no registry, whatever is asked for', async (t) => {
  using scratch = new Scratch();
  await using portal = await LocalServer.start(
    createServer((_, response) => {
      response.writeHead(200, { 'content-type': 'text/html' }).end('<!DOCTYPE html><title>Welcome</title>');
    }),
  );
  const { host } = portal;
  const image = `${host}/team/app`;
  const error = `error: ${host} answers with a web page: it is not a registry, or a login page is in between\n`;
  for (const argv of [[image], ['inspect', image], ['tags', image], [`${image}@sha256:${'0'.repeat(64)}`]]) {
    await t.test(argv.join(' '), async () => {
      const result = await runProgram(argv, { cwd: scratch.path, environment: { HOME: scratch.path } });
      assert.equal(result.exitCode, 5, result.stderr);
      assert.equal(
        result.stderr,
        `${error}hint: check the name of the registry, or log in to the network: open http://${host} in a browser\n`,
      );
    });
  }
});

// A machine's /etc/hosts may name Docker Hub, and a network may answer for any name: this run has neither.
const hideHosts = 'mount --bind /dev/null /etc/hosts && exec "$0" "$@"';
const withoutNames = ['unshare', '--net', '--mount', 'sh', '-c', hideHosts];
const noNamespaces =
  spawnSync(withoutNames[0]!, [...withoutNames.slice(1), 'true']).status === 0
    ? false
    : 'needs the right to make network and mount namespaces (unshare --net --mount)';

test(
  'Docker Hub without a network: the hint is about the network, not the name',
  { skip: noNamespaces },
  async () => {
    using scratch = new Scratch();
    const result = await runProgram(['alpine', '--retry', '0'], {
      cwd: scratch.path,
      environment: { HOME: scratch.path },
      under: withoutNames,
    });
    assert.equal(result.exitCode, 5, result.stderr);
    assert.match(
      result.stderr,
      /^error: cannot resolve registry-1\.docker\.io: .*\nhint: check the network and its DNS/,
    );
  },
);
