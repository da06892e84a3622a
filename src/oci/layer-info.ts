import { isObject, type JsonObject } from './json.ts';

/**
 * Returns the text of the file `json` in the rootfs, as Go 1.3's MarshalIndent wrote it for the original.
 * Keys are sorted by bytes at every level. Each level is indented by two blanks; the text does not end in a
 * newline. `<`, `>`, `&`, U+2028, U+2029 and control characters except newline and carriage return are
 * `\u00XX`. Numbers are converted to a float and written in the shortest `%g` form.
 */
export function formatLayerInfo(info: JsonObject): string {
  return format(info, '\n');
}

/** @param margin the newline and the blanks before the closing bracket of `value` */
function format(value: unknown, margin: string): string {
  if (typeof value === 'string') return quote(value);
  if (typeof value === 'number') return formatNumber(value);
  if (typeof value === 'boolean') return String(value);
  if (Array.isArray(value)) {
    return bracket('[', ']', margin, (inner) => value.map((member: unknown) => format(member, inner)));
  }
  if (isObject(value)) {
    const keys = Object.keys(value)
      .filter((key) => value[key] !== undefined)
      .toSorted(compareBytes);
    return bracket('{', '}', margin, (inner) =>
      keys.map((key) => `${quote(key)}: ${format(value[key], inner)}`),
    );
  }
  return 'null';
}

function bracket(
  open: string,
  close: string,
  margin: string,
  members: (inner: string) => readonly string[],
): string {
  const inner = `${margin}  `;
  const list = members(inner);
  return list.length === 0 ? open + close : open + inner + list.join(`,${inner}`) + margin + close;
}

/** Compares by code points, the order of UTF-8 bytes, which is not always that of UTF-16 units. */
function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

function quote(text: string): string {
  // eslint-disable-next-line no-control-regex
  const escaped = text.toWellFormed().replaceAll(/["\\<>&\u0000-\u001f\u2028\u2029]/g, (character) => {
    if (character === '"' || character === '\\') return `\\${character}`;
    if (character === '\n') return String.raw`\n`;
    if (character === '\r') return String.raw`\r`;
    return String.raw`\u` + character.charCodeAt(0).toString(16).padStart(4, '0');
  });
  return `"${escaped}"`;
}

/**
 * Formats with `%g` and the fewest digits that identify the number: `%e` if the exponent is below -4 or above
 * 5.
 */
function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return 'null';
  if (Object.is(value, -0)) return '-0';
  const [mantissa, exponent] = value.toExponential().split('e') as [string, string];
  const power = Number(exponent);
  if (value === 0 || (power >= -4 && power < 6)) return String(value);
  return `${mantissa}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`;
}
