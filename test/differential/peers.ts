import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import type { DockerRegistry } from '../support/docker-registry.ts';
import { runProgram } from '../support/program.ts';
import { printTree, treeDiff, type TreeOptions } from '../support/tree.ts';
import { HANG } from '../support/hang.ts';

/** Runs a peer; the test fails with its error. */
export function run(command: string, ...words: readonly string[]): string {
  return execFileSync(command, words, {
    encoding: 'utf8',
    maxBuffer: 1 << 26,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: HANG,
  });
}

/** Makes an OCI layout with one empty image, by umoci. */
export function newLayout(layout: string, tag: string): void {
  if (!existsSync(layout)) run('umoci', 'init', '--layout', layout);
  run('umoci', 'new', '--image', `${layout}:${tag}`);
}

/** Adds archives to the image unchanged, one layer each; umoci compresses them. */
export function addLayers(image: string, ...archives: readonly string[]): void {
  for (const archive of archives) run('umoci', 'raw', 'add-layer', '--image', image, archive);
}

/** Unpacks the image by umoci. Its layers must be in gzip: Debian's umoci does not support zstd. */
export function unpackByUmoci(image: string, directory: string): void {
  run('umoci', 'raw', 'unpack', '--image', image, directory);
}

/** Runs skopeo copy for registries that use plain http. */
export function copyImage(from: string, to: string, ...flags: readonly string[]): void {
  run('skopeo', 'copy', '-q', '--src-tls-verify=false', '--dest-tls-verify=false', ...flags, from, to);
}

/** Pulls with the program under test, without a cache of earlier runs; returns its output. */
export async function pull(source: string, directory: string, ...flags: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await runProgram([source, '-d', directory, '--no-cache', ...flags]);
  assert.equal(exitCode, 0, stderr);
  return stdout + stderr;
}

/** Pulls into one archive (-o), which GNU tar extracts into the directory. */
export async function pullAsArchive(source: string, directory: string): Promise<void> {
  const archive = `${directory}.tar`;
  const { exitCode, stderr } = await runProgram([source, '-o', archive, '--no-cache']);
  assert.equal(exitCode, 0, stderr);
  mkdirSync(directory);
  const flags = ['--numeric-owner', '--xattrs', '--xattrs-include=*'];
  run('tar', ...flags, '-xpf', archive, '-C', directory);
  rmSync(archive);
}

/** The names that dlrootfs adds to an image. */
const own: TreeOptions = { root: true, without: ['json', 'layersize', '.git'] };

/** Prints a directory, with its own line, without the files that dlrootfs adds. */
export function treeOf(directory: string, options: TreeOptions = {}): string {
  return printTree(directory, { ...own, ...options });
}

/** Fails with the first fifty different entries. */
export function assertSameTree(expected: string, actual: string): void {
  const differences = treeDiff(expected, actual).split('\n').slice(0, 50).join('\n');
  assert.equal(differences, '');
  assert.ok(expected === actual, 'the same lines, but not as often or in another order');
}

/** Returns the number of entries in a printed tree, so that a test can exclude an empty comparison. */
export const countOf = (tree: string): number => tree.split('\n').length - 1;

/** Returns the media types of an image's layers in the registry. */
export async function mediaTypes(
  registry: DockerRegistry,
  repository: string,
  tag: string,
): Promise<string[]> {
  const { layers } = JSON.parse((await getManifest(registry, repository, tag)).text) as {
    readonly layers: readonly { readonly mediaType: string }[];
  };
  return layers.map(({ mediaType }) => mediaType);
}

/** Tags an index in which the image for this machine follows one for another machine. */
export async function putIndex(
  registry: DockerRegistry,
  repository: string,
  tag: string,
  indexTag: string,
): Promise<void> {
  const { text, mediaType, digest } = await getManifest(registry, repository, tag);
  const size = Buffer.byteLength(text);
  const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
  const manifests = ['s390x', architecture].map((name) => ({
    mediaType,
    digest,
    size,
    platform: { os: 'linux', architecture: name },
  }));
  const index = 'application/vnd.oci.image.index.v1+json';
  const response = await fetch(`${registry.url}/v2/${repository}/manifests/${indexTag}`, {
    method: 'PUT',
    headers: { 'content-type': index },
    body: JSON.stringify({ schemaVersion: 2, mediaType: index, manifests }),
  });
  assert.equal(response.status, 201, await response.text());
}

async function getManifest(
  registry: DockerRegistry,
  repository: string,
  tag: string,
): Promise<{ readonly text: string; readonly mediaType: string; readonly digest: string }> {
  const accept = ['oci.image.manifest.v1', 'docker.distribution.manifest.v2'].map(
    (name) => `application/vnd.${name}+json`,
  );
  const response = await fetch(`${registry.url}/v2/${repository}/manifests/${tag}`, {
    headers: { accept: accept.join(', ') },
  });
  assert.equal(response.status, 200);
  const { headers } = response;
  return {
    text: await response.text(),
    mediaType: headers.get('content-type') ?? '',
    digest: headers.get('docker-content-digest') ?? '',
  };
}
