import { join } from 'node:path';
import { UsageError, printable } from '../../errors.ts';
import type { Reference } from '../../oci/reference.ts';
import {
  entryCredential,
  findEntry,
  findHelper,
  parseAuthFile,
  parseLegacyAuthFile,
  storeKey,
  type AuthFile,
} from '../config/auth-file.ts';
import { configHome, readConfigFile } from '../config/files.ts';
import { askHelper, HelperError } from './credential-helper.ts';
import type { Credential } from './credential.ts';
import type { RegistryOptions } from '../registry-options.ts';

/** One place where credentials may be. */
interface Source {
  /** For people: a path, or the name of a variable. */
  readonly name: string;
  readonly path?: string;
  readonly text?: string;
  /** Somebody named this very file: that it cannot be read is an error. */
  readonly explicit?: boolean;
  readonly legacy?: boolean;
}

function inDirectory(directory: string | undefined, ...file: string[]): Source[] {
  return directory ? [{ name: join(directory, ...file), path: join(directory, ...file) }] : [];
}

/**
 * The places to look in, in order: containers-auth.json(5), with docker's `DOCKER_AUTH_CONFIG` before its file. A file that is named
 * by `--authfile` or REGISTRY_AUTH_FILE is the only one.
 */
function credentialSources(
  options: Pick<RegistryOptions, 'authFile' | 'environment' | 'uid'>,
): readonly Source[] {
  const { environment, authFile, uid } = options;
  const {
    REGISTRY_AUTH_FILE: named,
    XDG_RUNTIME_DIR: runtime,
    DOCKER_CONFIG: docker,
    HOME: home,
  } = environment;
  if (authFile !== undefined) return [{ name: authFile, path: authFile, explicit: true }];
  if (named) return [{ name: named, path: named, explicit: true }];
  const variable = environment['DOCKER_AUTH_CONFIG'];
  return [
    ...inDirectory(
      runtime || (uid === undefined ? undefined : `/run/containers/${uid}`),
      ...(runtime ? ['containers'] : []),
      'auth.json',
    ),
    ...inDirectory(configHome(environment), 'containers', 'auth.json'),
    ...(variable ? [{ name: 'DOCKER_AUTH_CONFIG', text: variable }] : []),
    ...inDirectory(docker || (home && join(home, '.docker')), 'config.json'),
    ...inDirectory(home, '.dockercfg').map((source) => ({ ...source, legacy: true })),
  ];
}

/** Finds the credential for a repository on first demand, and keeps it. */
export class Credentials {
  readonly #options: RegistryOptions;
  #found: Promise<Credential | undefined> | undefined;
  readonly #registry: string;
  readonly #repository: string;

  constructor(
    { registry, repository }: Pick<Reference, 'registry' | 'repository'>,
    options: RegistryOptions,
  ) {
    this.#options = options;
    this.#registry = registry;
    this.#repository = repository;
  }

  /** Throws UsageError for a named file that cannot be read; other troubles are notices, and the search goes on. */
  find(signal: AbortSignal): Promise<Credential | undefined> {
    this.#found ??= this.#search(signal);
    return this.#found;
  }

  async #search(signal: AbortSignal): Promise<Credential | undefined> {
    const { noCredentials, credentials, registryToken } = this.#options;
    if (noCredentials) return undefined;
    if (registryToken !== undefined) {
      const given = typeof registryToken === 'string' ? { token: registryToken } : registryToken;
      return { kind: 'registry-token', source: '--registry-token', ...given };
    }
    if (credentials) {
      const { username, password, source = '--user' } = credentials;
      return { kind: 'password', username, password, source };
    }
    for (const source of credentialSources(this.#options)) {
      const file = await this.#read(source, signal);
      const found = file && (await this.#lookUp(file, source.name, signal));
      if (found) return found;
    }
    return undefined;
  }

  #notice(message: string): void {
    this.#options.report({ type: 'notice', message });
  }

  async #read(source: Source, signal: AbortSignal): Promise<AuthFile | undefined> {
    try {
      const named = source.explicit === true;
      const text = source.text ?? (await readConfigFile(source.path!, { named, signal }));
      const document: unknown = JSON.parse(text);
      return source.legacy ? parseLegacyAuthFile(document) : parseAuthFile(document);
    } catch (error) {
      signal.throwIfAborted();
      const absent =
        error instanceof Error && 'code' in error && /^(?:ENOENT|ENOTDIR)$/.test(String(error.code));
      if (absent && !source.explicit) return undefined;
      // The message of a JSON error quotes the text, which holds secrets.
      const reason =
        error instanceof SyntaxError ? 'it is not JSON' : error instanceof Error ? error.message : '';
      const message = `cannot read credentials from ${printable(source.name)}: ${printable(reason)}`;
      if (source.explicit)
        throw new UsageError(message, { hint: 'name another file by --authfile, or use --no-creds' });
      this.#notice(message);
      return undefined;
    }
  }

  async #lookUp(file: AuthFile, name: string, signal: AbortSignal): Promise<Credential | undefined> {
    const helper = findHelper(file, this.#registry);
    const store =
      file.credsStore === undefined ? undefined : { name: file.credsStore, key: storeKey(this.#registry) };
    for (const program of [helper, store]) {
      const credential = program && (await this.#ask(program, name, signal));
      if (credential) return credential;
    }
    const found = findEntry(file, this.#registry, this.#repository);
    if (!found) return undefined;
    try {
      return entryCredential(found.entry, `${name} (${found.key})`);
    } catch (error) {
      const reason = error instanceof Error ? error.message : '';
      this.#notice(`the entry ${printable(found.key, 120)} in ${printable(name)} is not used: ${reason}`);
      return undefined;
    }
  }

  async #ask(
    program: { readonly name: string; readonly key: string },
    file: string,
    signal: AbortSignal,
  ): Promise<Credential | undefined> {
    try {
      return await askHelper(program.name, program.key, this.#options.environment, signal);
    } catch (error) {
      if (!(error instanceof HelperError)) throw error;
      this.#notice(`${error.message}; ${printable(file)} names it for ${printable(this.#registry)}`);
      return undefined;
    }
  }
}
