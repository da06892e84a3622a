import { realpathSync } from 'node:fs';
import path from 'node:path';
import type { Reference } from '../oci/reference.ts';

/**
 * Returns the scopes of an image in a registry, the most specific first: its name with tag or digest, the
 * repository, the namespaces above it, the host, and the domains above it as `*.example.com`
 * (containers-policy.json(5), containers-registries.d(5)).
 */
function scopesOfReference({ registry, repository, tag, digest }: Reference): readonly string[] {
  const name = `${registry}/${repository}`;
  const parts = name.split('/');
  const above = parts.map((_, index) => parts.slice(0, parts.length - index).join('/'));
  const labels = registry.replace(/:\d+$/, '').split('.');
  const domains = labels.slice(1).map((_, index) => `*.${labels.slice(index + 1).join('.')}`);
  return [name + (digest === undefined ? `:${tag ?? 'latest'}` : `@${digest}`), ...above, ...domains];
}

/** An image on this machine. */
interface LocalImage {
  readonly transport: string;
  readonly path: string;
}

/**
 * Returns the transport of an image in a policy, and its scopes. An archive of `docker save` has no scopes.
 */
export function scopesOf(image: Reference | LocalImage): {
  readonly transport: string;
  readonly scopes: readonly string[];
} {
  if (!('transport' in image)) return { transport: 'docker', scopes: scopesOfReference(image) };
  const { transport, path: file } = image;
  return { transport, scopes: transport === 'docker-archive' ? [] : scopesOfPath(file) };
}

/**
 * Returns the scopes of a layout or archive: its path, without symlinks, and the directories above it,
 * without the root.
 */
function scopesOfPath(file: string): readonly string[] {
  const parts = resolved(path.resolve(file)).split('/');
  return parts.slice(1).map((_, index) => parts.slice(0, parts.length - index).join('/'));
}

/**
 * Resolves symlinks. Of a path that does not exist it resolves the existing directories: opening it reports
 * the error.
 */
function resolved(file: string): string {
  try {
    return realpathSync(file);
  } catch {
    const above = path.dirname(file);
    return above === file ? file : path.join(resolved(above), path.basename(file));
  }
}
