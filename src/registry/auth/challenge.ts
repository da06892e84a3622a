/** One challenge of a `WWW-Authenticate` header (RFC 9110, 11.6.1). */
export interface Challenge {
  /** Lower case. */
  readonly scheme: string;
  /** Names in lower case; of a repeated one the first. */
  readonly parameters: ReadonlyMap<string, string>;
}

const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
/** The parts of a header: a parameter; a scheme, with the token68 that may follow it; anything else, one character at a time. */
const PARTS = new RegExp(
  [
    String.raw`(?<name>${TOKEN})[ \t]*=[ \t]*(?:"(?<quoted>(?:[^"\\]|\\.)*)(?:"|$)|(?<plain>[^\s,]*))`,
    String.raw`(?<scheme>${TOKEN})(?:[ \t]+(?:[0-9A-Za-z._~+/-]+=*(?=\s*(?:,|$)))?)?`,
    '.',
  ].join('|'),
  'gs',
);

/**
 * Reads all challenges of all `WWW-Authenticate` headers, in order. Malformed parts are skipped, since registries and proxies send many.
 */
export function parseChallenges(headers: readonly string[]): readonly Challenge[] {
  return headers.flatMap(parseHeader);
}

function parseHeader(header: string): Challenge[] {
  const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
  for (const { groups = {} } of header.matchAll(PARTS)) {
    const { quoted, plain = '' } = groups;
    const name = groups['name']?.toLowerCase();
    const scheme = groups['scheme']?.toLowerCase();
    const parameters = challenges.at(-1)?.parameters;
    const value = quoted === undefined ? plain : quoted.replaceAll(/\\(.)/gs, '$1');
    if (name !== undefined && !parameters?.has(name)) parameters?.set(name, value);
    if (scheme !== undefined) challenges.push({ scheme, parameters: new Map() });
  }
  return challenges;
}
