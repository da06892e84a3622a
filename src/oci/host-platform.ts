import type { Platform } from './platform.ts';
import { normalisePlatform } from './platform.ts';

/** What Node and the kernel say about the machine. */
export interface Host {
  /** `process.platform` */
  readonly platform: string;
  /** `process.arch` */
  readonly arch: string;
  /** The text of /proc/cpuinfo, which only 32-bit ARM needs. */
  readonly cpuinfo?: string | undefined;
}

const GOARCH: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386', ppc64: 'ppc64le' };

/** The platform to pull when none is named. Systems without containers of their own (macOS) run Linux ones. */
export function hostPlatform(host: Host): Platform {
  const os = host.platform === 'win32' ? 'windows' : host.platform === 'freebsd' ? 'freebsd' : 'linux';
  const architecture = Object.hasOwn(GOARCH, host.arch) ? GOARCH[host.arch]! : host.arch;
  const variant = architecture === 'arm' ? armVariant(host.cpuinfo ?? '') : undefined;
  return normalisePlatform({ os, architecture, variant });
}

/** As containerd/platforms, cpuinfo_linux.go: ARMv6 Raspberry Pis say "CPU architecture: 7". */
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
