import { printable, UsageError } from '../errors.ts';
import { type JsonObject, textOf } from './json.ts';

/** The system and processor of an image, in Go's words (`linux`, `amd64`, `v7`), as in OCI image-index.md. */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string | undefined;
  /** `os.version`, which only Windows images carry. */
  readonly osVersion?: string | undefined;
}

/**
 * Parses `os/arch[/variant]`, such as `linux/arm/v7`, and normalises it.
 *
 * @throws UsageError, with the probably meant platform in its hint
 */
export function parsePlatform(text: string): Platform {
  const parts = text.split('/');
  const [os = '', architecture, variant] = parts;
  const isWell = parts.length <= 3 && parts.every((part) => /^[A-Za-z0-9_.-]+$/.test(part));
  if (isWell && architecture !== undefined && !(parts.length === 2 && isArchitecture(os)))
    return normalisePlatform({ os, architecture, variant });
  const dashed = text.split('-');
  throw new UsageError(`platform "${printable(text, 80)}" is not os/arch[/variant]`, {
    hint: isWell
      ? dashed.length > 1 && SYSTEMS.has(dashed[0]!.toLowerCase())
        ? `write --platform ${dashed.join('/')}`
        : meantPlatform(os, architecture)
      : 'write one like linux/amd64, linux/arm64 or linux/arm/v7',
  });
}

const SYSTEMS: ReadonlySet<string> = new Set(['linux', 'windows', 'darwin', 'macos', 'freebsd']);
/** The architectures of most images. */
const ARCHITECTURES: ReadonlySet<string> = new Set(['amd64', 'arm64', 'arm', '386']);

function isArchitecture(name: string): boolean {
  return ARCHITECTURES.has(normaliseArchitecture(name.toLowerCase(), '')[0]);
}

/** Returns the hint for a system without an architecture, or the reverse. */
function meantPlatform(word: string, variant: string | undefined): string {
  if (SYSTEMS.has(word.toLowerCase()))
    return `write the architecture too, as in --platform ${word.toLowerCase()}/amd64`;
  return `write --platform ${formatPlatform(normalisePlatform({ os: 'linux', architecture: word, variant }))}`;
}

/** Formats `os/arch/variant` for messages; texts of an image are made printable. */
export function formatPlatform(platform: Platform): string {
  const { os, architecture, variant, osVersion } = platform;
  const name = [os, architecture, variant].filter((part) => part !== undefined && part !== '').join('/');
  return printable(osVersion === undefined ? name : `${name} (${osVersion})`);
}

/** Returns the platform in a config or an index, normalised; missing members are empty. */
export function platformOf(value: JsonObject): Platform {
  return normalisePlatform({
    os: textOf(value['os']) ?? '',
    architecture: textOf(value['architecture']) ?? '',
    variant: textOf(value['variant']),
    osVersion: textOf(value['os.version']),
  });
}

/** Gives each platform one spelling, that of containerd/platforms. */
function normalisePlatform(platform: Platform): Platform {
  const os = platform.os.toLowerCase();
  const [architecture, variant] = normaliseArchitecture(
    platform.architecture.toLowerCase(),
    platform.variant?.toLowerCase() ?? '',
  );
  return {
    os: os === 'macos' ? 'darwin' : os,
    architecture,
    ...(variant === '' ? {} : { variant }),
    ...(platform.osVersion === undefined ? {} : { osVersion: platform.osVersion }),
  };
}

const ARCHITECTURE_ALIASES: Readonly<Record<string, readonly [architecture: string, variant?: string]>> = {
  i386: ['386', ''],
  x86_64: ['amd64'],
  'x86-64': ['amd64'],
  aarch64: ['arm64'],
  armhf: ['arm', 'v7'],
  armel: ['arm', 'v6'],
};

/** Variants with another spelling, by architecture. */
const VARIANTS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  amd64: { v1: '' },
  arm64: { '8': '', v8: '', 'v8.0': '', '8.0': '', '9': 'v9', '9.0': 'v9', 'v9.0': 'v9' },
  arm: { '': 'v7', '5': 'v5', '6': 'v6', '7': 'v7', '8': 'v8' },
};

function normaliseArchitecture(architecture: string, variant: string): readonly [string, string] {
  const [name, version = variant] = ownValue(ARCHITECTURE_ALIASES, architecture) ?? [architecture];
  return [name, ownValue(ownValue(VARIANTS, name) ?? {}, version) ?? version];
}

function ownValue<T>(table: Readonly<Record<string, T>>, key: string): T | undefined {
  return Object.hasOwn(table, key) ? table[key] : undefined;
}

/** Returns the platforms to accept for `wanted`, normalised, best first: containerd's `platforms.Only`. */
export function acceptablePlatforms(wanted: Platform): readonly Platform[] {
  const { os, architecture, variant } = normalisePlatform(wanted);
  const pairs = acceptableArchitectures(architecture, variant ?? '');
  return pairs.map(([name, version]) =>
    normalisePlatform({ os, architecture: name, variant: version, osVersion: wanted.osVersion }),
  );
}

function acceptableArchitectures(
  architecture: string,
  variant: string,
): readonly (readonly [string, string])[] {
  const own: readonly [string, string] = [architecture, variant];
  switch (architecture) {
    case 'amd64':
      return [own, ...descending(variant, 1).map((name) => ['amd64', name] as const), ['386', '']];
    case 'arm64':
      return [own, ...arm64Below(variant), ...descending('v9', 5).map((name) => ['arm', name] as const)];
    case 'arm':
      return [own, ...descending(variant, 5).map((name) => ['arm', name] as const)];
    default:
      return [own];
  }
}

/** Returns the lower variants down to `least`: for `v7` and 5, `v6` and `v5`. */
function descending(variant: string, least: number): readonly string[] {
  const major = Number(/^v(\d)$/.exec(variant)?.[1] ?? 0);
  const names: string[] = [];
  for (let number = major - 1; number >= least; number -= 1) names.push(`v${number}`);
  return names;
}

/** Returns the lower variants of arm64. v9.m includes v8.(m+5), as Arm defines it; v8 stops at v8.9. */
function arm64Below(variant: string): readonly (readonly [string, string])[] {
  const match = /^v([89])(?:\.(\d{1,2}))?$/.exec(variant === '' ? 'v8' : variant);
  if (match === null) return [];
  const minor = Number(match[2] ?? 0);
  const names: string[] = [];
  for (let number = minor - 1; number >= 0; number -= 1) names.push(`v${match[1]}.${number}`);
  if (match[1] === '9')
    for (let number = Math.min(minor + 5, 9); number >= 0; number -= 1) names.push(`v8.${number}`);
  return names.map((name) => ['arm64', name] as const);
}

/**
 * Returns the rank of `platform` among the platforms acceptable for `wanted`, 0 for the best; undefined if it
 * is none of them. An `osVersion` matters only if one is wanted.
 */
export function platformRank(platform: Platform, wanted: Platform): number | undefined {
  const { os, architecture, variant, osVersion } = normalisePlatform(platform);
  const rank = acceptablePlatforms(wanted).findIndex(
    (candidate) =>
      candidate.os === os &&
      candidate.architecture === architecture &&
      candidate.variant === variant &&
      (wanted.osVersion === undefined || wanted.osVersion === osVersion),
  );
  return rank === -1 ? undefined : rank;
}

/** The description of the machine by Node and the kernel. */
export interface Machine {
  /** `process.platform` */
  readonly platform: string;
  /** `process.arch` */
  readonly arch: string;
  /** The text of /proc/cpuinfo, which only 32-bit ARM needs. */
  readonly cpuinfo?: string | undefined;
}

const GOARCH: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386', ppc64: 'ppc64le' };

/**
 * Returns the platform to pull if the user names none. Systems without containers of their own (macOS) run
 * Linux ones.
 */
export function hostPlatform(host: Machine): Platform {
  const os = host.platform === 'win32' ? 'windows' : host.platform === 'freebsd' ? 'freebsd' : 'linux';
  const architecture = ownValue(GOARCH, host.arch) ?? host.arch;
  const variant = architecture === 'arm' ? armVariant(host.cpuinfo ?? '') : undefined;
  return normalisePlatform({ os, architecture, variant });
}

/** Follows containerd/platforms, cpuinfo_linux.go: ARMv6 Raspberry Pis report "CPU architecture: 7". */
function armVariant(cpuinfo: string): string {
  const architecture = fieldOf(cpuinfo, 'cpu architecture');
  if (architecture === '8' || architecture === 'aarch64') return 'v8';
  if (architecture.startsWith('6')) return 'v6';
  if (architecture.startsWith('5')) return 'v5';
  return fieldOf(cpuinfo, 'model name').startsWith('armv6-compatible') ? 'v6' : 'v7';
}

function fieldOf(cpuinfo: string, name: string): string {
  for (const line of cpuinfo.toLowerCase().split('\n')) {
    const colon = line.indexOf(':');
    if (colon > 0 && line.slice(0, colon).trim() === name) return line.slice(colon + 1).trim();
  }
  return '';
}
