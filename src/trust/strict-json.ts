import { printable } from '../errors.ts';
import { isObject, type JsonObject, parseJson } from '../oci/json.ts';

/**
 * Parses a JSON document in which no object repeats a member.
 *
 * @throws Error, IntegrityError
 */
export function parseStrictJson(bytes: Uint8Array, what: string): unknown {
  const value = parseJson(bytes, what);
  const double = doubleMember(Buffer.from(bytes).toString('utf8'));
  if (double !== undefined) throw new Error(`${what} has ${printable(double, 100)} twice in one object`);
  return value;
}

/** Tokens of a valid document that matter: strings and punctuation. */
const TOKENS = /"(?:[^"\\]|\\.)*"|[{}[\],:]/gs;

/** Returns a name that an object repeats, as the document spells it. */
function doubleMember(text: string): string | undefined {
  const open: (Set<unknown> | undefined)[] = [];
  let last = '';
  for (const [token] of text.matchAll(TOKENS)) {
    if (token === '{') open.push(new Set());
    else if (token === '[') open.push(undefined);
    else if (token === '}' || token === ']') open.pop();
    else if (token === ':') {
      const names = open.at(-1)!;
      const name: unknown = JSON.parse(last);
      if (names.has(name)) return last;
      names.add(name);
    }
    last = token;
  }
  return undefined;
}

/**
 * Returns the object if it has all required members, perhaps optional ones, and no others.
 *
 * @throws Error that says what is wrong
 */
export function requireMembers(
  value: unknown,
  what: string,
  {
    required = [],
    optional = [],
  }: { readonly required?: readonly string[]; readonly optional?: readonly string[] },
): JsonObject {
  if (!isObject(value)) throw new Error(`${what} is no object`);
  const unknown = Object.keys(value).find((key) => !required.includes(key) && !optional.includes(key));
  if (unknown !== undefined)
    throw new Error(`${what} has the unknown member ${printable(JSON.stringify(unknown), 100)}`);
  const missing = required.find((key) => !Object.hasOwn(value, key));
  if (missing !== undefined) throw new Error(`${what} has no "${missing}"`);
  return value;
}
