/**
 * Milliseconds: what takes longer hangs. The one limit of all tests for what must not hang; no test is about how long something takes.
 * Less than the limit of the test runner, and enough for a machine with twenty other processes.
 */
export const HANG = 540_000;
