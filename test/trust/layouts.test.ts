/** Signatures in OCI layouts, some of whose documents are missing or damaged. */
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { after, describe, test } from 'node:test';
import { type IndexEntry, layoutFiles, tagged, writeFiles } from '../layout/build-layout.ts';
import { file, tar } from '../support/archive.ts';
import { fakeManifest, type FakeManifest, mediaTypes, sha256 } from '../support/fake-image.ts';
import { runHere } from '../support/in-process.ts';
import { Scratch } from '../support/program.ts';
import { BUNDLE_TYPE, keyBundle, signingKey, statement } from '../support/signatures.ts';

const blobPath = (digest: string): string => `blobs/sha256/${digest.slice(7)}`;

describe('a signed layout', () => {
  const scratch = new Scratch();
  const ours = signingKey();
  const key = scratch.join('ours.pub');
  writeFileSync(key, ours.pem);
  const [image, other] = ['ours', 'another'].map((text) =>
    fakeManifest({ layers: [{ tar: tar(file('etc/motd', text)) }] }),
  ) as [FakeManifest, FakeManifest];
  let count = 0;
  after(() => scratch[Symbol.dispose]());

  const { entry: signature, blobs: documents } = signatureOf(image);

  /** Returns the manifest of a bundle about the image, and the blobs of that manifest. */
  function signatureOf({ mediaType, digest, bytes: of }: FakeManifest): {
    readonly entry: IndexEntry;
    readonly blobs: readonly Uint8Array[];
  } {
    const blobs = [Buffer.from(keyBundle(ours, statement(digest))), Buffer.from('{}')] as const;
    const [layer, config] = blobs.map((bytes) => ({ digest: sha256(bytes), size: bytes.length }));
    const document = {
      schemaVersion: 2,
      mediaType: mediaTypes.oci.manifest,
      artifactType: BUNDLE_TYPE,
      config: { mediaType: 'application/vnd.oci.empty.v1+json', ...config },
      layers: [{ mediaType: BUNDLE_TYPE, ...layer }],
      subject: { mediaType, digest, size: of.length },
    };
    const bytes = Buffer.from(JSON.stringify(document));
    return { entry: { manifest: { mediaType: document.mediaType, bytes, digest: sha256(bytes) } }, blobs };
  }

  /** Writes a layout of both images and the signature of one; returns the directory. */
  function layout(): string {
    const directory = scratch.join(`layout${(count += 1)}`);
    const files = layoutFiles([tagged(image, 'ours'), tagged(other, 'another'), signature]);
    for (const blob of documents) files.set(blobPath(sha256(blob)), blob);
    writeFiles(directory, files);
    return directory;
  }

  /** Returns the words of the refusal; undefined if the image is accepted. */
  async function refusal(directory: string, tag = 'ours'): Promise<string | undefined> {
    const { exitCode, stderr } = await runHere(['ls', `oci:${directory}:${tag}`, '--verify-key', key]);
    assert.equal(exitCode, exitCode === 0 ? 0 : 6, stderr);
    return exitCode === 0 ? undefined : stderr;
  }

  test('counts for its image alone', async () => {
    const directory = layout();
    assert.equal(await refusal(directory), undefined);
    assert.match((await refusal(directory, 'another')) ?? '', /it has no signature/);
  });

  test('whatever has become of the other image', async () => {
    const [absent, damaged, malformed] = [layout(), layout(), layout()];
    rmSync(`${absent}/${blobPath(other.digest)}`);
    writeFileSync(`${damaged}/${blobPath(other.digest)}`, Buffer.alloc(other.bytes.length, ' '));
    writeFileSync(`${malformed}/${blobPath(other.digest)}`, '');
    for (const directory of [absent, damaged, malformed]) assert.equal(await refusal(directory), undefined);
  });

  test('and not if the signature is damaged: the error names it', async () => {
    const directory = layout();
    const { digest, bytes } = signature.manifest;
    writeFileSync(`${directory}/${blobPath(digest)}`, Buffer.alloc(bytes.length, ' '));
    assert.match((await refusal(directory)) ?? '', new RegExp(`referrer ${digest}: `));
  });
});
