/** What each exit code says, for help, man page and README. */
export const exitCodes: readonly (readonly [code: string, meaning: string])[] = [
  ['0', 'done'],
  ['1', 'a bug in dlrootfs'],
  ['2', 'the command line does not make sense'],
  ['3', 'image, tag or platform not found'],
  ['4', 'not authorized'],
  ['5', 'network: the registry cannot be reached, or does not answer as one'],
  ['6', 'integrity: a digest is wrong, or manifest, config or layer are malformed'],
  ['7', 'the destination (or git) refuses'],
  ['8', 'rate limit of the registry'],
  ['129, 130, 141, 143', 'ended by SIGHUP, SIGINT, SIGPIPE, SIGTERM'],
];
