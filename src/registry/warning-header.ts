import { printable } from '../errors.ts';

/** The texts of `Warning: 299 - "text"` headers, which registries may send to people (distribution specification). */
export function warningTexts(headers: readonly string[]): readonly string[] {
  const texts = headers.join(', ').matchAll(/\b299 \S+ "((?:[^"\\]|\\.)*)"/g);
  return [...texts].map((match) => printable(match[1]!.replaceAll(/\\(.)/g, '$1'), 300));
}
