import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { CorruptBlobError } from '../src/blob/transfer.ts';
import * as errors from '../src/errors.ts';
import { MalformedTarError } from '../src/tar/entry.ts';

const { DlrootfsError, InterruptedError } = errors;

const kinds = [
  ...Object.values(errors).filter(
    (value) => typeof value === 'function' && value.prototype instanceof DlrootfsError,
  ),
  CorruptBlobError,
  MalformedTarError,
].filter((kind) => kind !== InterruptedError) as unknown as readonly (new (
  message: string,
) => InstanceType<typeof DlrootfsError>)[];

test('every error but an interruption has a hint, also without one of its own', () => {
  assert.ok(kinds.length >= 9);
  for (const kind of kinds) {
    const { hint = '' } = new kind('something');
    assert.match(hint, /^[a-z].{10,}[^.]$/s, kind.name);
  }
});

test('an error with another hint is the same in all else', () => {
  for (const kind of kinds) {
    const error = new kind('something');
    error.kept = true;
    const { hint } = error;
    const other = error.withHint('do this');
    assert.ok(other instanceof kind);
    assert.equal(error.hint, hint);
    assert.equal(other.hint, 'do this');
    for (const key of ['name', 'message', 'stack', 'code', 'exitCode', 'kept', 'cause'] as const)
      assert.equal(other[key], error[key], key);
  }
});

test('hints are one sentence without a full stop, and no flag in them is unknown', async () => {
  const { optionNamed } = await import('../src/command-line/commands.ts');
  const source = new URL('../src/', import.meta.url);
  const files = readdirSync(source, { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.ts'),
  );
  const hints = files.flatMap((file) =>
    [...readFileSync(new URL(file, source), 'utf8').matchAll(/(?<!`)\bhint:\s*(['"`])([^\n]*?)\1/g)].map(
      (match) => [file, match[2]!] as const,
    ),
  );
  assert.ok(hints.length > 80);
  /** Flags of cp, usermod and docker. */
  const ofOthers = new Set(['sparse', 'add-subuids', 'add-subgids', 'pids-limit']);
  for (const [file, hint] of hints) {
    assert.doesNotMatch(hint, /\.$|^\s|\n/, `${file}: ${hint}`);
    for (const [, flag = ''] of hint.matchAll(/(?<![\w-])--([a-z][a-z-]+)/g))
      if (!ofOthers.has(flag)) assert.ok(optionNamed(flag), `${file}: ${hint}`);
  }
});
