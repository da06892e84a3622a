import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { printable, UsageError } from '../../errors.ts';
import { isObject, type JsonObject, jsonOf, textOf } from '../../oci/json.ts';
import { HUB_ALIASES, type Reference } from '../../oci/reference.ts';
import { hasCode, osErrorOf, reasonOf } from '../../sys/os-error.ts';
import type { Secrets } from '../../sys/secrets.ts';
import { configHome, readConfigFile } from '../../sys/config-files.ts';
import type { RegistryOptions } from '../registry-options.ts';

/** A credential for a registry; `source`: where it was found, for messages. */
export type Credential =
  | {
      readonly kind: 'password';
      readonly username: string;
      readonly password: string;
      readonly source: string;
    }
  /** An OAuth2 refresh token, exchanged at the token server by POST. */
  | { readonly kind: 'identity-token'; readonly token: string; readonly source: string }
  /** A Bearer token, sent as it is. */
  | { readonly kind: 'registry-token'; readonly token: string; readonly source: string };

/** Names a credential without its secret: `bob's credentials from -u`. */
export function credentialText(credential: Credential): string {
  const source = printable(credential.source, 200);
  if (credential.kind !== 'password') return `the ${credential.kind.replace('-', ' ')} from ${source}`;
  return `${printable(credential.username, 80)}'s credentials from ${source}`;
}

/** Returns the value of an Authorization header for a user name and a password. */
export function basic({ username, password }: Extract<Credential, { kind: 'password' }>): string {
  return `Basic ${Buffer.from(`${username}:${password}`, 'utf8').toString('base64')}`;
}

/** Adds the secret of a credential. */
export function addCredential(secrets: Secrets, credential: Credential): void {
  if (credential.kind === 'password') secrets.addPassword(credential.username, credential.password);
  else secrets.add(credential.token);
}

/** A possible source of credentials. */
interface CredentialSource {
  /** A path, or the name of a variable. */
  readonly name: string;
  /** The value of the variable. */
  readonly text?: string;
  /** True if the user named this file: it must be readable. */
  readonly explicit?: boolean;
  /** `~/.dockercfg` of docker before 1.7: the map of `auths` alone. */
  readonly legacy?: boolean;
}

function inDirectory(directory: string | undefined, file: string): CredentialSource[] {
  return directory ? [{ name: join(directory, file) }] : [];
}

/**
 * Returns the files and variables to search, in order: containers-auth.json(5), with docker's
 * `DOCKER_AUTH_CONFIG` before its file. A file named by `--authfile` or REGISTRY_AUTH_FILE is the only one.
 */
function credentialSources(
  options: Pick<RegistryOptions, 'authFile' | 'environment' | 'uid'>,
): readonly CredentialSource[] {
  const { environment, authFile, uid } = options;
  const {
    REGISTRY_AUTH_FILE: named,
    XDG_RUNTIME_DIR: runtime,
    DOCKER_CONFIG: docker,
    HOME: home,
  } = environment;
  const explicit = authFile ?? (named || undefined);
  if (explicit !== undefined) return [{ name: explicit, explicit: true }];
  const variable = environment['DOCKER_AUTH_CONFIG'];
  return [
    ...(runtime
      ? inDirectory(runtime, 'containers/auth.json')
      : inDirectory(uid === undefined ? undefined : `/run/containers/${uid}`, 'auth.json')),
    ...inDirectory(configHome(environment), 'containers/auth.json'),
    ...(variable ? [{ name: 'DOCKER_AUTH_CONFIG', text: variable }] : []),
    ...inDirectory(docker || (home && join(home, '.docker')), 'config.json'),
    ...inDirectory(home, '.dockercfg').map((source) => ({ ...source, legacy: true })),
  ];
}

/**
 * Finds the credential for a repository; undefined without one.
 *
 * @throws UsageError for a named file that cannot be read; other errors are notices, and the search continues
 */
export async function findCredential(
  place: Pick<Reference, 'registry' | 'repository'>,
  options: RegistryOptions,
): Promise<Credential | undefined> {
  const { noCredentials, credentials, registryToken } = options;
  if (noCredentials) return undefined;
  if (registryToken !== undefined) {
    const given = typeof registryToken === 'string' ? { token: registryToken } : registryToken;
    return { kind: 'registry-token', source: '--registry-token', ...given };
  }
  if (credentials) return { kind: 'password', ...credentials, source: credentials.source ?? '--user' };
  for (const source of credentialSources(options)) {
    const file = await readSource(source, options);
    const found = await lookUp(file, source.name, place, options);
    if (found) return found;
  }
  return undefined;
}

/** Reads the document of a source; undefined without one. */
async function readSource(
  { name, text, explicit = false, legacy }: CredentialSource,
  { signal, report }: RegistryOptions,
): Promise<unknown> {
  try {
    const document: unknown = JSON.parse(text ?? (await readConfigFile(name, { named: explicit, signal })));
    return legacy ? { auths: document } : document;
  } catch (error) {
    signal?.throwIfAborted();
    if (hasCode(error, 'ENOENT', 'ENOTDIR') && !explicit) return undefined;
    // The message of a JSON error quotes the text, which holds secrets.
    const reason =
      error instanceof SyntaxError ? 'it is not JSON' : (osErrorOf(error)?.text ?? reasonOf(error));
    const message = `cannot read credentials from ${printable(name)}: ${printable(reason)}`;
    if (explicit)
      throw new UsageError(message, { hint: 'name another file by --authfile, or use --no-creds' });
    report({ type: 'notice', message });
    return undefined;
  }
}

async function lookUp(
  file: unknown,
  name: string,
  { registry, repository }: Pick<Reference, 'registry' | 'repository'>,
  { environment, report, signal = new AbortController().signal }: RegistryOptions,
): Promise<Credential | undefined> {
  const notice = (message: string) => report({ type: 'notice', message });
  for (const helper of findHelpers(file, registry)) {
    try {
      const credential = await askHelper(helper.name, helper.key, environment, signal);
      if (credential) return credential;
    } catch (error) {
      if (!(error instanceof HelperError)) throw error;
      notice(`${error.message}; ${printable(name)} names it for ${printable(registry)}`);
    }
  }
  const found = findEntry(file, registry, repository);
  try {
    return found && entryCredential(found.entry, `${name} (${found.key})`);
  } catch (error) {
    notice(`ignoring the entry ${printable(found!.key, 120)} in ${printable(name)}: ${reasonOf(error)}`);
    return undefined;
  }
}

/** The key of Docker Hub in docker's files, and the key for its helpers. */
const HUB_KEY = 'https://index.docker.io/v1/';

/** Returns the members of `auths` or `credHelpers`; none where that is not an object. */
function membersOf(file: unknown, key: 'auths' | 'credHelpers'): readonly [string, unknown][] {
  const value = isObject(file) ? file[key] : undefined;
  return isObject(value) ? Object.entries(value) : [];
}

/** Returns the host of a key such as `https://HOST/v1/`; Hub's hosts have one name. */
function hostOfKey(key: string): string {
  const host = key
    .replace(/^https?:\/\//i, '')
    .split('/', 1)[0]!
    .toLowerCase();
  return HUB_ALIASES.has(host) ? 'docker.io' : host;
}

function namespacedKey(key: string): string {
  const slash = key.indexOf('/');
  if (slash === -1 || /^https?:/i.test(key)) return key;
  const host = hostOfKey(key);
  return host + key.slice(slash);
}

/**
 * Returns the helper programs that may have the credentials of `registry`, each with the key for it: first
 * that of the registry, then the store for all registries.
 *
 * @param file the parsed `config.json` or `auth.json`
 */
export function findHelpers(
  file: unknown,
  registry: string,
): readonly { readonly name: string; readonly key: string }[] {
  const host = hostOfKey(registry);
  const own = membersOf(file, 'credHelpers')
    .map(([key, name]) => ({ key, name: textOf(name) ?? '' }))
    .find(({ key, name }) => hostOfKey(key) === host && name !== '');
  const store = isObject(file) ? textOf(file['credsStore']) : undefined;
  return [
    ...(own ? [own] : []),
    ...(store === undefined ? [] : [{ name: store, key: host === 'docker.io' ? HUB_KEY : registry }]),
  ];
}

/**
 * Returns the entry for a repository: the most specific key wins, then keys that are addresses of the host.
 * Empty entries are skipped: they only say that a store has the credentials.
 */
export function findEntry(
  file: unknown,
  registry: string,
  repository: string,
): { readonly key: string; readonly entry: JsonObject } | undefined {
  const host = hostOfKey(registry);
  const entries = membersOf(file, 'auths').flatMap(([key, entry]) =>
    isObject(entry) && Object.keys(entry).length > 0 ? [{ key, entry }] : [],
  );
  const parts = repository.split('/');
  // `docker.io/library/alpine`, `docker.io/library`: containers-auth.json(5).
  const paths = parts.map((_, n) => `${host}/${parts.slice(0, parts.length - n).join('/')}`);
  const ofHost = entries.filter(({ key }) => hostOfKey(key) === host);
  return (
    paths.map((path) => entries.find(({ key }) => namespacedKey(key) === path)).find(Boolean) ??
    ofHost.find(({ key }) => key === registry) ??
    ofHost.find(({ key }) => key === HUB_KEY) ??
    ofHost.find(({ key }) => /^(?:https?:\/\/)?[^/]*(?:\/(?:v[12]\/?)?)?$/i.test(key))
  );
}

/**
 * Returns the credential in an entry; undefined if it has none.
 *
 * @throws Error with the reason, without secrets
 */
export function entryCredential(entry: JsonObject, source: string): Credential | undefined {
  const [registryToken, identityToken, auth, username, password] = [
    'registrytoken',
    'identitytoken',
    'auth',
    'username',
    'password',
  ].map((name) => textOf(entry[name]));
  if (registryToken) return { kind: 'registry-token', token: registryToken, source };
  if (identityToken) return { kind: 'identity-token', token: identityToken, source };
  if (auth) return decodeAuth(auth, source);
  return username && password ? { kind: 'password', username, password, source } : undefined;
}

function decodeAuth(auth: string, source: string): Credential {
  const text = Buffer.from(auth, 'base64')
    .toString('utf8')
    .replaceAll(/^\0+|\0+$/g, '');
  const colon = text.indexOf(':');
  if (colon <= 0) throw new Error('"auth" is not base64 of user:password');
  return {
    kind: 'password',
    username: text.slice(0, colon),
    password: text.slice(colon + 1).replaceAll(/\0+$/g, ''),
    source,
  };
}

/** Milliseconds. The helper may wait for its user to unlock a store. */
const HELPER_TIMEOUT = 30_000;
const MAX_OUTPUT = 65_536;
/** Milliseconds between a helper's exit and the end of its output. */
const LINGER = 500;

/** A helper failed. The message can be printed and has no secret. */
export class HelperError extends Error {}

interface Outcome {
  readonly code: number | null;
  readonly output: string;
}

function runHelper(
  program: string,
  key: string,
  environment: RegistryOptions['environment'],
  timeout: number,
  signal: AbortSignal,
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, ['get'], {
      stdio: ['pipe', 'pipe', 'ignore'],
      env: environment,
      killSignal: 'SIGKILL',
      signal,
    });
    // Node's own `timeout` keeps the process alive where the program is missing.
    setTimeout(() => child.kill('SIGKILL'), timeout).unref();
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      if (output.length > MAX_OUTPUT) child.kill('SIGKILL');
    });
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, output }));
    // A background process of a helper may keep its output open.
    child.once('exit', (code) =>
      setTimeout(() => child.stdout.destroy(), code === null ? 0 : LINGER).unref(),
    );
    // A helper may exit without reading its input.
    child.stdin.on('error', () => undefined).end(key);
  });
}

/**
 * Runs `docker-credential-NAME get` (protocol of docker-credential-helpers: the key on stdin, JSON on stdout)
 * for the credential of `key`; undefined if the helper has none.
 *
 * @throws HelperError; the signal's reason
 */
export async function askHelper(
  name: string,
  key: string,
  environment: RegistryOptions['environment'],
  signal: AbortSignal,
  timeout = HELPER_TIMEOUT,
): Promise<Credential | undefined> {
  const program = `docker-credential-${name}`;
  if (!/^[\w.-]+$/.test(name))
    throw new HelperError(`"${printable(name, 60)}" is not a name of a credential helper`);
  const outcome = await runHelper(program, key, environment, timeout, signal).catch((error: unknown) => {
    signal.throwIfAborted();
    if (hasCode(error, 'ENOENT', 'EACCES'))
      throw new HelperError(`the program ${program} is not in PATH`, { cause: error });
    throw new HelperError(`cannot run ${program}: ${printable(String(error), 160)}`, { cause: error });
  });
  signal.throwIfAborted();
  if (outcome.code === null) {
    const why =
      outcome.output.length > MAX_OUTPUT ? 'printed too much' : `did not answer in ${timeout / 1000} s`;
    throw new HelperError(`${program} ${why}`);
  }
  if (outcome.code === 0) return parseAnswer(outcome.output, program);
  // The protocol has this text for a missing credential, on stdout.
  if (outcome.output.trim() === 'credentials not found in native keychain') return undefined;
  // A helper that fails late may have printed a credential.
  const said = jsonOf(outcome.output) === undefined ? printable(outcome.output.trim(), 200) : '';
  throw new HelperError(`${program} failed: ${said || `exit code ${outcome.code}`}`);
}

function parseAnswer(output: string, program: string): Credential | undefined {
  const answer = jsonOf(output);
  if (!isObject(answer) || typeof answer['Secret'] !== 'string' || typeof answer['Username'] !== 'string') {
    throw new HelperError(`${program} printed no credential`);
  }
  const { Username: username, Secret: secret } = answer;
  if (secret === '') return undefined;
  if (username === '<token>') return { kind: 'identity-token', token: secret, source: program };
  return { kind: 'password', username, password: secret, source: program };
}
