import { readFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { output } from './setup.ts';

/** Returns a line about the machine and a line with the versions of the measured programs. */
export function describeMachine(tool: string): string {
  const processors = cpus();
  const model = processors[0]?.model.trim() ?? 'unknown processor';
  const memory = Math.round(totalmem() / 2 ** 30);
  const system = /^PRETTY_NAME="(.*)"$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'Linux';
  const versions = [
    output('bash', ['-c', `${tool} version`]) || 'dlrootfs of unknown version',
    `Node ${process.version}`,
    ...['docker-registry', 'tar', 'isal', 'curl', 'skopeo', 'umoci', 'podman', 'git'].map(debian),
    debian('golang-github-google-go-containerregistry-dev'),
  ];
  return `${new Date().toISOString().slice(0, 10)}: ${processors.length} cores (${model}), ${memory} GiB, ${system}, kernel ${release()}.
${versions.join(', ')}.
`;
}

function debian(name: string): string {
  return `${name} ${output('dpkg-query', ['-W', '-f', '${Version}', name]) || 'not here'}`;
}
