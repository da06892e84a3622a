import { join } from 'node:path';
import type { RegistryOptions } from './registry-options.ts';

type Environment = RegistryOptions['environment'];

/** `$XDG_CONFIG_HOME`, else `~/.config`; undefined where there is no home. */
export function configHome(environment: Environment): string | undefined {
  const { XDG_CONFIG_HOME: xdg, HOME: home } = environment;
  if (xdg) return xdg;
  return home ? join(home, '.config') : undefined;
}

/** The directory of that name in `/etc`, or in each of what stands for `/etc`. */
export function systemConfigs(
  options: Pick<RegistryOptions, 'configDirs'>,
  name: 'containers' | 'docker',
): string[] {
  return (options.configDirs ?? ['/etc']).map((directory) => join(directory, name));
}
