import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { digestOf } from '../../src/oci/digest.ts';
import type { LocalLayer } from '../../src/oci/image.ts';
import { noise, Workshop } from './support/workshop.ts';

/** A layer on this machine, and how often its blob is open. */
function localLayer(bytes: Buffer, promised = bytes) {
  const digest = digestOf(promised);
  const opened = { times: 0, now: 0 };
  const layer: LocalLayer = {
    id: digest.slice(7),
    mediaType: '',
    digest,
    checksum: { digest },
    size: bytes.length,
    info: {},
    openLocal: async () => {
      opened.times += 1;
      opened.now += 1;
      return {
        size: bytes.length,
        read: async (into, at) => bytes.copy(into, 0, at),
        close: async () => void (opened.now -= 1),
      };
    },
  };
  return { layer, opened };
}

for (const hold of [false, true]) {
  const how = hold ? ', held' : '';
  test(`a layer on this machine is read where it is: neither cache nor spool is used${how}`, async () => {
    await using shop = await Workshop.open();
    writeFileSync(path.join(shop.directory, 'file'), '');
    const spoolDirectory = path.join(shop.directory, 'file/none');
    const store = await shop.store({ directory: undefined, spoolDirectory });
    const [one, two] = [localLayer(noise(3_000_000)), localLayer(noise(100))];
    const layers = [one.layer, two.layer, one.layer];
    const tars = await shop.pull(layers, { store, hold });
    assert.deepEqual(
      tars.map((tar) => digestOf(tar)),
      layers.map(({ digest }) => digest),
    );
    assert.deepEqual(
      [one.opened, two.opened],
      [1, 1].map((times) => ({ times, now: 0 })),
    );
    const starts = shop.events.filter((event) => event.type === 'layer-start');
    assert.deepEqual(
      starts.map(({ cached }) => cached),
      [false, false, false],
    );
    await store.close();
  });

  test(`other bytes than the manifest says are an error at once, without another try${how}`, async () => {
    await using shop = await Workshop.open();
    const store = await shop.store({ directory: undefined });
    const { layer, opened } = localLayer(noise(50_000), noise(50_000));
    await assert.rejects(shop.pullAgain([layer], { store, hold }), {
      exitCode: 6,
      message: /^layer 1 of 1 \(\w{12}\): its file has digest \S+ but must have \S+$/,
    });
    assert.deepEqual(opened, { times: 1, now: 0 });
    await store.close();
  });
}
