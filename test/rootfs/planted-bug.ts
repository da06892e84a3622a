/**
 * Plants a bug in the program and its threads when it is loaded before them (`node --import`): in the last
 * step before a system call, after all checks, `%up%` in a name becomes `../`.
 */
import { CallMemory } from '../../src/rootfs/call-memory.ts';

for (const method of ['putName', 'putSecond'] as const) {
  const put = Reflect.get(CallMemory.prototype, method);
  Reflect.set(CallMemory.prototype, method, function (this: CallMemory, name: string): number {
    return put.call(this, name.replaceAll('%up%', '../'));
  });
}
