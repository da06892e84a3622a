import { spawn } from 'node:child_process';
import { mkdirSync, openSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

export interface Registry extends AsyncDisposable {
  readonly port: number;
}

/**
 * Starts Debian's docker-registry on a free port of loopback, with plain http and its blobs in `directory`.
 */
export async function startRegistry(directory: string): Promise<Registry> {
  mkdirSync(`${directory}/data`, { recursive: true });
  const port = await freePort();
  writeFileSync(
    `${directory}/config.yml`,
    `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  cache: {blobdescriptor: inmemory}
  filesystem: {rootdirectory: ${directory}/data}
http: {addr: '127.0.0.1:${port}', secret: bench}
`,
  );
  const log = openSync(`${directory}/log`, 'w');
  const server = spawn('docker-registry', ['serve', `${directory}/config.yml`], {
    env: { ...process.env, OTEL_TRACES_EXPORTER: 'none' },
    stdio: ['ignore', log, log],
  });
  const stopped = new Promise<void>((resolve) => {
    server.once('exit', () => resolve());
    server.once('error', () => resolve());
  });
  for (let attempt = 0; ; attempt += 1) {
    const answer = await fetch(`http://127.0.0.1:${port}/v2/`).catch(() => undefined);
    if (answer?.ok) break;
    if (attempt === 100 || server.exitCode !== null)
      throw new Error(`docker-registry does not answer: see ${directory}/log`);
    await sleep(50);
  }
  return {
    port,
    async [Symbol.asyncDispose]() {
      server.kill();
      await stopped;
    },
  };
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => {
    probe.listen(0, '127.0.0.1', resolve);
  });
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => {
    probe.close(resolve);
  });
  return port;
}
