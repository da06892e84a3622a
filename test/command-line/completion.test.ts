import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { missing } from '../support/debian.ts';
import { programCommand, runProgram, Scratch } from '../support/program.ts';
import { TerminalSession } from '../support/terminal-session.ts';

/** The typed line, and the completed line (a string) or the offered words (a list). */
const cases: readonly (readonly [typed: string, expected: string | readonly string[]])[] = [
  ['dlrootfs insp', 'dlrootfs inspect '],
  ['dlrootfs completion fi', 'dlrootfs completion fish '],
  ['dlrootfs completion ', ['bash', 'zsh', 'fish']],
  ['dlrootfs help cred', 'dlrootfs help credentials '],
  ['dlrootfs cache pr', 'dlrootfs cache prune '],
  ['dlrootfs alpine --no-j', 'dlrootfs alpine --no-json '],
  ['dlrootfs --platf', 'dlrootfs --platform'],
  ['dlrootfs inspect alpine --mirr', 'dlrootfs inspect alpine --mirror'],
  ['dlrootfs alpine --progress js', 'dlrootfs alpine --progress json '],
  ['dlrootfs alpine --progress=js', 'dlrootfs alpine --progress=json '],
  ['dlrootfs alpine --progress ', ['auto', 'tty', 'plain', 'json', 'none']],
  ['dlrootfs alpine --for nsp', 'dlrootfs alpine --for nspawn '],
  ['dlrootfs alpine --platform linux/ri', 'dlrootfs alpine --platform linux/riscv64 '],
  ['dlrootfs alpine -d some-d', 'dlrootfs alpine -d some-directory/'],
  ['dlrootfs alpine --authfile some-f', 'dlrootfs alpine --authfile some-file.json '],
  ['dlrootfs docker-a', 'dlrootfs docker-archive:'],
  ['dlrootfs oci-archive:some-f', 'dlrootfs oci-archive:some-file.json '],
  ['dlrootfs inspect oci:some-d', 'dlrootfs inspect oci:some-directory/'],
];

async function completionScript(shell: string): Promise<string> {
  const { exitCode, stdout, stderr } = await runProgram(['completion', shell]);
  assert.deepEqual([exitCode, stderr], [0, '']);
  return stdout;
}

/** A PATH with a program `dlrootfs` in the directory `bin`, which completions run. */
const pathWith = (scratch: Scratch) => `${scratch.join('bin')}:${process.env['PATH']}`;

function installProgram(scratch: Scratch): void {
  mkdirSync(scratch.join('bin'));
  const words = programCommand.map((word) => `'${word}'`).join(' ');
  writeFileSync(scratch.join('bin/dlrootfs'), `#!/bin/sh\nexec ${words} "$@"\n`);
  chmodSync(scratch.join('bin/dlrootfs'), 0o755);
}

/** A directory with a file and a directory. */
async function workplace(): Promise<Scratch> {
  const scratch = new Scratch();
  installProgram(scratch);
  writeFileSync(scratch.join('some-file.json'), '');
  mkdirSync(scratch.join('some-directory'));
  for (const shell of ['bash', 'zsh', 'fish'])
    writeFileSync(scratch.join(`completions.${shell}`), await completionScript(shell));
  return scratch;
}

const ready = 'READY>';
const terminals = {
  bash: `exec env PS1='${ready}' HISTFILE= bash --noprofile --norc -i`,
  zsh: `exec env PS1='${ready}' zsh -f -i`,
};
const setup = {
  bash: '. ./completions.bash\n',
  zsh: 'autoload -Uz compinit; compinit -D; setopt no_list_beep; . ./completions.zsh\n',
};

test('completions pass no word as an argument, which other users could see', async () => {
  for (const shell of ['bash', 'zsh', 'fish'])
    assert.match(await completionScript(shell), /__complete (?:bash|zsh|fish) 2>/, shell);
  const { stdout } = await runProgram(['__complete', 'fish'], { stdin: '-u\0me:secret\0alpine\0--no-j\0' });
  assert.match(stdout, /^--no-json\t/);
});

for (const shell of ['bash', 'zsh'] as const) {
  test(`completions: ${shell} on a terminal`, { skip: missing(shell, 'script') }, async () => {
    using scratch = await workplace();
    await using terminal = TerminalSession.start(terminals[shell], {
      columns: 120,
      rows: 12,
      cwd: scratch.path,
      environment: { HOME: scratch.path, PATH: pathWith(scratch) },
    });
    await terminal.until((screen) => screen === ready);
    terminal.type(setup[shell]);
    for (const [n, [typed, expected]] of cases.entries()) {
      // The control character clears the line, and its echo shows that the shell has finished completing.
      terminal.type(`\u0015clear; echo case ${n}\n`);
      await terminal.until((screen) => screen.endsWith(`case ${n}\n${ready}`));
      const line = typeof expected === 'string';
      terminal.type(`${typed}${line ? '\t' : '\t\t'}`);
      const holds = (screen: string) => {
        // zsh completes to `--flag=`, ready for the value.
        if (line) return screen.replaceAll(/=$/gm, '').split('\n').includes(`${ready}${expected}`.trimEnd());
        const offered = screen.slice(screen.indexOf(typed) + typed.length).split(/\s+/);
        return expected.every((word) => offered.includes(word));
      };
      const screen = await terminal.until(holds, 5000);
      assert.ok(holds(screen), `${typed}<TAB> in ${shell} gives\n${screen}`);
    }
  });
}

test('completions: fish', { skip: missing('fish') }, async () => {
  using scratch = await workplace();
  const script = cases.map(([typed]) => `echo '=='; complete -C '${typed}'`).join('\n');
  const output = execFileSync('fish', ['--no-config', '-c', `source completions.fish\n${script}`], {
    cwd: scratch.path,
    encoding: 'utf8',
    env: { PATH: pathWith(scratch), HOME: scratch.path },
  });
  const offers = output.split('==\n').slice(1);
  for (const [n, [typed, expected]] of cases.entries()) {
    const offered = offers[n]!.trimEnd()
      .split('\n')
      .map((line) => line.split('\t')[0]!);
    if (typeof expected === 'string') {
      const word = expected.trimEnd().split(' ').at(-1)!;
      assert.deepEqual(offered, [word], `${typed}<TAB>`);
    } else {
      assert.deepEqual(offered.toSorted(), expected.toSorted(), `${typed}<TAB>`);
    }
  }
});

async function flagsAfter(line: string): Promise<string> {
  using scratch = new Scratch();
  installProgram(scratch);
  return execFileSync('fish', ['--no-config', '-c', `source; complete -C '${line}'`], {
    input: await completionScript('fish'),
    encoding: 'utf8',
    env: { ...process.env, PATH: pathWith(scratch) },
  });
}

test('completions: each command completes its own flags only', { skip: missing('fish') }, async () => {
  assert.match(await flagsAfter('dlrootfs alpine --'), /^--git\t/m);
  assert.doesNotMatch(await flagsAfter('dlrootfs inspect alpine --'), /^--git\t/m);
  assert.match(await flagsAfter('dlrootfs cache --'), /^--cache-size\t/m);
});
