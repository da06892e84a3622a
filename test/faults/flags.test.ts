import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { Setting } from './setting.ts';

test('--ca-file, --cert-dir, --tls-verify=false: a pull needs one of them, else a hint names them', async () => {
  await using setting = await Setting.open(undefined, { tls: true });
  const { cert } = setting.registry.authority!;
  writeFileSync(setting.scratch.join('ca.pem'), cert);
  mkdirSync(setting.scratch.join('certs'));
  writeFileSync(setting.scratch.join('certs/ca.crt'), cert);
  const without = await setting.pull(['--retry', '0']);
  assert.equal(without.exitCode, 5, without.stderr);
  assert.match(without.stderr, /cannot trust the certificate.*\nhint: .*--ca-file/);
  for (const flags of [['--ca-file', 'ca.pem'], ['--cert-dir', 'certs'], ['--tls-verify=false']]) {
    await setting.pullWell([...flags, '-d', `out${flags[0]}`]);
  }
});

const basic = { auth: { type: 'basic', users: { me: 'secretword' } } } as const;
const encoded = Buffer.from('me:secretword').toString('base64');

test('--authfile: its credentials are taken, and nowhere shown', async () => {
  await using setting = await Setting.open(undefined, basic);
  const { host } = setting.registry;
  writeFileSync(setting.scratch.join('auth.json'), JSON.stringify({ auths: { [host]: { auth: encoded } } }));
  const { stdout, stderr } = await setting.pullWell(['--authfile', 'auth.json', '-v']);
  assert.ok(!`${stdout}${stderr}`.includes('secretword') && !`${stdout}${stderr}`.includes(encoded));
});

test('a credential helper is a script that is found in PATH', async () => {
  await using setting = await Setting.open(undefined, basic);
  const helper = setting.scratch.join('docker-credential-script');
  writeFileSync(helper, `#!/bin/sh\ncat >asked\necho '{"Username":"me","Secret":"secretword"}'\n`);
  chmodSync(helper, 0o755);
  writeFileSync(setting.scratch.join('config.json'), '{"credsStore":"script"}');
  const environment = {
    PATH: `${setting.scratch.path}:${process.env['PATH']}`,
    DOCKER_CONFIG: setting.scratch.path,
  };
  const { stdout, stderr } = await setting.pullWell(['-v'], { environment });
  assert.ok(!`${stdout}${stderr}`.includes('secretword'));
  assert.ok(setting.names.includes('asked'));
});
