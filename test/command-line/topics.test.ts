import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { topics } from '../../src/command-line/topics.ts';
import { ExitCode } from '../../src/errors.ts';

// The topics that help and man page print list the same environment variables, exit codes and JSON fields as
// the code.

const root = new URL('../../', import.meta.url);
const sources = readdirSync(new URL('src', root), { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts') && !name.includes('command-line/topics'))
  .map((name) => readFileSync(new URL(`src/${name}`, root), 'utf8'));

/** Returns the terms of a topic's lists; a line may have several. */
const terms = (topic: string): readonly string[] =>
  topics[topic]!.paragraphs.flatMap((paragraph) =>
    typeof paragraph === 'string' ? [] : paragraph.flatMap(([term]) => term.split(', ')),
  );

function variablesThatAreRead(): ReadonlySet<string> {
  const found = sources.flatMap((text) => [
    ...[...text.matchAll(/environment\['([A-Z_]+)'\]/g)].map((match) => match[1]!),
    ...[...text.matchAll(/\{([^{}]*)\} = (?:\w+\.)?environment;/g)].flatMap(
      (match) => match[1]!.match(/\b[A-Z][A-Z_]+\b(?=:| *[,}])/g) ?? [],
    ),
    ...[...text.matchAll(/'(HTTPS?_PROXY)'/g)].map((match) => match[1]!),
  ]);
  return new Set(found);
}

/** Variables that are read by Node, its OpenSSL or its resolver, not by our code. */
const OF_NODE = new Set(['NODE_EXTRA_CA_CERTS', 'SSL_CERT_FILE', 'SSL_CERT_DIR']);

test('help environment has each variable that the program reads, and no other', () => {
  const read = variablesThatAreRead();
  assert.ok(read.size >= 12, [...read].join(' '));
  const listed = terms('environment');
  assert.deepEqual(
    [...read].filter((name) => !listed.includes(name)),
    [],
  );
  assert.deepEqual(
    listed.filter((name) => !read.has(name) && !OF_NODE.has(name)),
    [],
  );
});

test('help exit-codes has each exit code, and no other', () => {
  const signals = ['129', '130', '141', '143'];
  assert.deepEqual(
    terms('exit-codes').toSorted(),
    [...Object.values(ExitCode).map(String), ...signals].toSorted(),
  );
});

/** Returns the names of properties at any depth. */
function namesOf(schema: unknown, key = ''): readonly string[] {
  if (typeof schema !== 'object' || schema === null) return [];
  const entries = Object.entries(schema as Record<string, unknown>);
  const own = key === 'properties' ? entries.map(([name]) => name) : [];
  const required = key === 'notRestored' ? (schema as { required: readonly string[] }).required : [];
  return [...own, ...required, ...entries.flatMap(([name, value]) => namesOf(value, name))];
}

test('help json has each field of the schemas, and each type of event', () => {
  const help = JSON.stringify(topics['json']!.paragraphs);
  for (const file of readdirSync(new URL('docs/schema', root))) {
    const text = readFileSync(new URL(`docs/schema/${file}`, root), 'utf8');
    const events = file.startsWith('progress')
      ? [...text.matchAll(/"type": \{ "(?:const|enum)": (.*?) \}/g)].flatMap(
          ([, names = '']) => names.match(/[a-z-]+/g) ?? [],
        )
      : [];
    if (file.startsWith('progress')) assert.ok(events.length >= 10);
    const names = new Set([...namesOf(JSON.parse(text)), ...events]);
    const missing = [...names].filter((name) => !new RegExp(`\\b${name}\\b`).test(help));
    assert.deepEqual(missing, [], file);
  }
});

test('help json names no field that no schema has', () => {
  const schemas = readdirSync(new URL('docs/schema', root)).map((file) =>
    readFileSync(new URL(`docs/schema/${file}`, root), 'utf8'),
  );
  for (const term of terms('json'))
    assert.ok(
      schemas.some((text) => text.includes(`"${term}"`)),
      term,
    );
});
