import { printable, UsageError } from './errors.ts';
import type { PullRequest } from './options.ts';

/** All options of the library, with those that a caller passes on from another command. */
const REQUEST_MEMBERS: Readonly<Record<keyof PullRequest, true>> = {
  image: true,
  destination: true,
  git: true,
  layerInfo: true,
  runtimes: true,
  force: true,
  replace: true,
  merge: true,
  rootless: true,
  terminal: true,
  idMappings: true,
  prepare: true,
  virtualMachines: true,
  diskSize: true,
  diskCompression: true,
  layers: true,
  backend: true,
  platform: true,
  paths: true,
  excludes: true,
  add: true,
  addOwner: true,
  jobs: true,
  cache: true,
  cacheDirectory: true,
  cacheSize: true,
  offline: true,
  registry: true,
  stdin: true,
  environment: true,
  report: true,
  secrets: true,
  signers: true,
  signal: true,
};

const REGISTRY_MEMBERS: Readonly<Record<keyof NonNullable<PullRequest['registry']>, true>> = {
  uid: true,
  credentials: true,
  registryToken: true,
  authFile: true,
  noCredentials: true,
  tlsVerify: true,
  plainHttp: true,
  certDir: true,
  caFile: true,
  certFile: true,
  keyFile: true,
  mirrors: true,
  registryVersion: true,
  retry: true,
  retryDelay: true,
  timeouts: true,
  configDirs: true,
};

/** @throws UsageError for an option that no command has: a misspelled one would have no effect */
export function refuseUnknownOptions(request: Partial<PullRequest>): void {
  refuseUnknown(request, REQUEST_MEMBERS);
  refuseUnknown(request.registry ?? {}, REGISTRY_MEMBERS, 'registry.');
}

function refuseUnknown(given: object, known: Readonly<Record<string, true>>, before = ''): void {
  const unknown = Object.keys(given).find((name) => !Object.hasOwn(known, name));
  if (unknown !== undefined)
    throw new UsageError(`unknown option: ${before}${printable(unknown)}`, {
      hint: 'docs/library.md lists the options',
    });
}
