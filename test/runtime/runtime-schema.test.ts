import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { Ajv } from 'ajv';
import { configOf } from '../../src/oci/config.ts';
import { containerOf } from '../../src/runtime/container.ts';
import { runcConfig } from '../../src/runtime/runc.ts';

/** The schemas of the OCI runtime specification, from Debian's golang-github-opencontainers-specs-dev. */
const folder = '/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema/';
const skip =
  !existsSync(folder) && 'needs the schemas: apt-get install golang-github-opencontainers-specs-dev';

function validator(): (document: unknown) => string {
  const schemas = new Ajv({ strict: false, validateFormats: false });
  for (const name of readdirSync(folder)) {
    const { $schema: _draft4, ...schema } = JSON.parse(readFileSync(folder + name, 'utf8')) as Record<
      string,
      unknown
    >;
    schemas.addSchema(schema, name);
  }
  return (document) => {
    schemas.validate('config-schema.json', document);
    return schemas.errorsText();
  };
}

test('config.json is valid by the OCI runtime specification, with and without root', { skip }, () => {
  const validate = validator();
  const image = configOf({
    os: 'linux',
    architecture: 'arm64',
    config: {
      Cmd: ['x'],
      Env: ['A=b'],
      Volumes: { '/data': {} },
      ExposedPorts: { '80/tcp': {} },
      Labels: { a: 'b' },
    },
  });
  const user = { uid: 1000, gid: 1000, groups: [4, 20], home: '/' };
  const volumes = new Map([['/data', { uid: 1, gid: 1, mode: 0o700 }]]);
  const facts = { shell: true, init: false, getent: true, usr: true, osRelease: true, volumes };
  const container = containerOf(image.config, user, facts, {
    name: 'box',
    rootfs: '/box',
    hidden: ['/.git'],
  });
  for (const rootless of [undefined, { uid: 1000, gid: 1000 }]) {
    const document = JSON.parse(runcConfig(container, image, 'rootfs', { rootless }).text) as Record<
      string,
      unknown
    >;
    assert.equal(validate(document), 'No errors');
    assert.notEqual(validate({ ...document, root: 'rootfs' }), 'No errors');
  }
});

test('the sample config.json is, too', { skip }, () => {
  const sample = new URL('../../sample_configs/config.json', import.meta.url);
  assert.equal(validator()(JSON.parse(readFileSync(sample, 'utf8'))), 'No errors');
});
