/**
 * Plants a bug when it is loaded before the program (`node --import`), in its threads too. `%up%` in a name
 * becomes `../` after all checks, in the last step before the system call.
 */
import { CallMemory } from '../../src/rootfs/call-memory.ts';

for (const method of ['putName', 'putSecond'] as const) {
  const put = Reflect.get(CallMemory.prototype, method);
  Reflect.set(CallMemory.prototype, method, function (this: CallMemory, name: string): number {
    return put.call(this, name.replaceAll('%up%', '../'));
  });
}
