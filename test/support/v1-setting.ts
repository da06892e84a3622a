import { mkdirSync, writeFileSync } from 'node:fs';
import { dir, file, symlink, tar, whiteout } from './archive.ts';
import { FakeV1Registry, type FakeV1Options } from './fake-v1-registry.ts';
import { runHere } from './in-process.ts';
import { Scratch, type ProgramResult } from './program.ts';
import { RegistryClient, type ClientOptions } from './registry-client.ts';

/** An image of two layers: files, and a deletion with a link. */
export const image = {
  layers: [
    { tar: tar(dir('etc'), file('etc/motd', 'hello\n'), file('etc/gone', 'x')) },
    {
      tar: tar(
        whiteout('etc/gone'),
        symlink('bin', 'usr/bin'),
        dir('usr/bin'),
        file('usr/bin/tool', '#!/bin/sh\n'),
      ),
    },
  ],
};

/** A registry of version 1, and runs of the program with it. */
export interface Setting {
  readonly registry: FakeV1Registry;
  readonly scratch: Scratch;
  /** Pulls into `out` in the scratch directory, with one retry. */
  readonly pull: (repository: string, ...flags: readonly string[]) => Promise<ProgramResult>;
  readonly run: (
    argv: readonly string[],
    environment?: Readonly<Record<string, string>>,
  ) => Promise<ProgramResult>;
}

export async function withV1(
  options: FakeV1Options,
  run: (setting: Setting) => Promise<void>,
): Promise<void> {
  await using registry = await FakeV1Registry.start(options);
  using scratch = new Scratch();
  const retries = ['--retry', '1', '--retry-delay', '1ms'];
  await run({
    registry,
    scratch,
    pull: (repository, ...flags) =>
      runHere([
        registry.reference(...(repository.split(':') as [string])),
        '-d',
        scratch.join('out'),
        ...retries,
        ...flags,
      ]),
    run: runHere,
  });
}

/** Runs a test with a registry of version 1 that has one image with these layers, and with a client. */
export function withLayers(repository: string, layers: readonly Buffer[]) {
  return async (
    options: FakeV1Options,
    client: ClientOptions,
    run: (registry: FakeV1Registry, client: RegistryClient) => Promise<void>,
  ): Promise<void> => {
    await using registry = await FakeV1Registry.start(options);
    registry.push(repository, 'latest', { layers });
    await using session = await RegistryClient.open(registry.reference(repository), client);
    await run(registry, session);
  };
}

/** Makes a registries.conf that replaces Docker Hub by `host`; returns the environment to use it. */
export function hubIs(host: string, scratch: Scratch): Readonly<Record<string, string>> {
  mkdirSync(scratch.join('home/.config/containers'), { recursive: true });
  const table = `[[registry]]\nprefix = "docker.io"\nlocation = "${host}"\n`;
  writeFileSync(scratch.join('home/.config/containers/registries.conf'), table);
  return { HOME: scratch.join('home') };
}
