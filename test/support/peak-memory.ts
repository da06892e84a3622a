import { readFileSync } from 'node:fs';
import type { ProgramResult, RunningProgram } from './program.ts';

const SAMPLE_MILLISECONDS = 5;

/** The largest resident memory of a process so far, in KiB (VmHWM in proc(5)); 0 when it has ended. */
export function peakMemory(pid: number): number {
  try {
    return Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

/** Waits for the end of a program, and returns its largest resident memory in KiB too. */
export async function resultWithPeak(
  running: RunningProgram,
): Promise<ProgramResult & { readonly peak: number }> {
  let peak = 0;
  const timer = setInterval(() => {
    peak = Math.max(peak, peakMemory(running.pid));
  }, SAMPLE_MILLISECONDS);
  try {
    return { ...(await running.result), peak };
  } finally {
    clearInterval(timer);
  }
}
