/**
 * Milliseconds after which a command counts as hanging: the one limit of all tests, since no test measures
 * time. It is less than the limit of the test runner, and enough for a machine with twenty other processes.
 */
export const HANG = 540_000;
