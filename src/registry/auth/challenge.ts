/** One challenge of a `WWW-Authenticate` header (RFC 9110, 11.6.1). */
export interface Challenge {
  /** Lower case. */
  readonly scheme: string;
  /** Names in lower case; of a repeated one the first. */
  readonly parameters: ReadonlyMap<string, string>;
}

const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const TOKEN68 = /[0-9A-Za-z._~+/-]+=*(?=\s*(?:,|$))/y;
const QUOTED = /"((?:[^"\\]|\\.)*)(?:"|$)/sy;
const UNQUOTED = /[^\s,]*/y;

class Scanner {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  get done(): boolean {
    return this.#at >= this.#text.length;
  }

  take(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#text);
    if (match) this.#at += match[0].length;
    return match;
  }

  /** Takes `pattern` if `next` follows. */
  takeBefore(pattern: RegExp, next: RegExp): string | undefined {
    const start = this.#at;
    const match = this.take(pattern);
    if (match && this.take(next)) return match[0];
    this.#at = start;
    return undefined;
  }

  skip(): void {
    this.#at += 1;
  }
}

const EQUALS = /[ \t]*=[ \t]*/y;
const SEPARATORS = /[\s,]+/y;

function valueOf(scanner: Scanner): string {
  const match = scanner.take(QUOTED);
  if (match) return match[1]!.replaceAll(/\\(.)/gs, '$1');
  return scanner.take(UNQUOTED)?.[0] ?? '';
}

/**
 * Reads all challenges of all `WWW-Authenticate` headers, in order. Malformed parts are skipped, since registries and proxies send many.
 */
export function parseChallenges(headers: readonly string[]): readonly Challenge[] {
  return headers.flatMap(parseHeader);
}

function parseHeader(header: string): Challenge[] {
  const scanner = new Scanner(header);
  const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
  while (!scanner.done) {
    if (scanner.take(SEPARATORS)) continue;
    const name = challenges.length > 0 ? scanner.takeBefore(TOKEN, EQUALS) : undefined;
    if (name !== undefined) {
      const { parameters } = challenges.at(-1)!;
      const value = valueOf(scanner);
      if (!parameters.has(name.toLowerCase())) parameters.set(name.toLowerCase(), value);
      continue;
    }
    const scheme = scanner.take(TOKEN);
    if (!scheme) {
      scanner.skip();
      continue;
    }
    challenges.push({ scheme: scheme[0].toLowerCase(), parameters: new Map() });
    scanner.take(/[ \t]+/y);
    scanner.take(TOKEN68);
  }
  return challenges;
}
