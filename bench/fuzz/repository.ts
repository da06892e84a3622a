import { specialFile, type Placed } from './case.ts';
import { mutateBytes, oddText } from './mutate.ts';
import type { Random } from './random.ts';

const ran = 'sh -c "echo ran >>@WORK@/outside/ran; cat"';

/** Configuration that makes a careless git run a program or write elsewhere. */
const configs: readonly string[] = [
  `[filter "x"]\n\tclean = ${JSON.stringify(ran)}\n\tsmudge = ${JSON.stringify(ran)}\n\trequired = true\n`,
  `[filter "x"]\n\tprocess = ${JSON.stringify(ran)}\n`,
  `[core]\n\tfsmonitor = ${JSON.stringify(ran)}\n\tattributesFile = @WORK@/out/.git/attributes\n`,
  '[core]\n\tworktree = @WORK@/outside\n',
  '[core]\n\tbare = true\n\trepositoryformatversion = 1\n[extensions]\n\tworktreeConfig = true\n',
  '[extensions]\n\tobjectFormat = sha256\n\tpartialClone = origin\n',
  `[remote "origin"]\n\turl = "ext::${ran.replaceAll('"', '\\"')}"\n\tpromisor = true\n`,
  '[include]\n\tpath = /dev/zero\n',
  '[include]\n\tpath = config\n',
  '[core]\n\thooksPath = @WORK@/out/.git/hooks\n\tsshCommand = touch @WORK@/outside/ran\n',
  '[gc]\n\tauto = 1\n[index]\n\tversion = 4\n\tsparse = true\n[core]\n\tsplitIndex = true\n',
  '[broken\n',
];

const extraFiles: Readonly<Record<string, string>> = {
  'info/attributes': '* filter=x\n',
  attributes: '* filter=x diff=x merge=x\n',
  'info/grafts': `${'0'.repeat(40)} ${'1'.repeat(40)}\n`,
  'info/sparse-checkout': '/*\n!/etc\n',
  'objects/info/alternates': '@WORK@/outside\n',
  commondir: '@WORK@/outside\n',
  gitdir: '@WORK@/outside\n',
  'config.worktree': configs[0]!,
  shallow: `${'0'.repeat(40)}\n`,
  'packed-refs': 'garbage\n',
  'hooks/post-checkout': '#!/bin/sh\necho ran >>@WORK@/outside/ran\n',
  'hooks/reference-transaction': '#!/bin/sh\necho ran >>@WORK@/outside/ran\n',
  'modules/x/config': configs[0]!,
  'index.lock': '',
  'HEAD.lock': '',
  'config.lock': '',
  'refs/heads/evil': `${'0'.repeat(40)}\n`,
};

const at = (path: string) => `out/.git/${path}`;

/** What a container may have done to the .git of its rootfs. */
export function damagedRepository(random: Random, contents: ReadonlyMap<string, Buffer>): Placed[] {
  const names = [...contents.keys()];
  const some = () => random.pick(names);
  return random.list(1, 4, (): Placed => {
    const kind = random.below(10);
    if (kind < 3) {
      const path = some();
      const old = contents.get(path) ?? Buffer.alloc(0);
      return { path: at(path), type: 'file', content: mutateBytes(random, old) };
    }
    if (kind < 6) {
      const parts = some().split('/');
      return specialFile(random, at(parts.slice(0, 1 + random.below(parts.length)).join('/')));
    }
    if (kind < 8) {
      const old = contents.get('config') ?? Buffer.alloc(0);
      const added = random.list(1, 3, () => random.pick(configs)).join('');
      return { path: at('config'), type: 'file', content: Buffer.concat([old, Buffer.from(added)]) };
    }
    if (kind === 8) {
      const [path, text] = random.pick(Object.entries(extraFiles));
      return { path: at(path), type: 'file', content: Buffer.from(text) };
    }
    return random.pick([
      { path: 'out/.gitattributes', type: 'file', content: Buffer.from('* filter=x\n') },
      { path: 'out/.gitmodules', type: 'file', content: Buffer.from(`[submodule "x"]\n\tpath = etc\n`) },
      { path: 'out/etc', type: 'symlink', content: Buffer.from('@WORK@/outside') },
      { path: 'out/a', type: 'symlink', content: Buffer.from('@WORK@/outside/escaped') },
      { path: 'out/json', type: 'fifo' },
      { path: 'out/json', type: 'symlink', content: Buffer.from('@WORK@/outside/escaped') },
      { path: 'out/etc/.git', type: 'directory' },
      { path: 'out/new', type: 'file', content: Buffer.from(oddText(random)) },
    ] as const);
  });
}
