/** Spellings of a text from which a reader can recover it. They do not use the code that masks secrets. */
export const encodings: Readonly<Record<string, (text: string) => string>> = {
  plain: (text) => text,
  percent: (text) => encodeURIComponent(text),
  'percent of every byte': (text) =>
    Buffer.from(text)
      .toString('hex')
      .replaceAll(/../g, (byte) => `%${byte}`),
  base64: (text) => Buffer.from(text).toString('base64'),
  'base64 without padding': (text) => Buffer.from(text).toString('base64').replaceAll('=', ''),
  base64url: (text) => Buffer.from(text).toString('base64url'),
  'base64 with more around': (text) => Buffer.from(`{"secret":"${text}"}`).toString('base64'),
  hex: (text) => Buffer.from(text).toString('hex'),
  'hex in capitals': (text) => Buffer.from(text).toString('hex').toUpperCase(),
  JSON: (text) => JSON.stringify(text).slice(1, -1),
  'JSON of every character': (text) =>
    Array.from(text)
      .map((each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, '0')}`)
      .join(''),
  HTML: (text) =>
    Array.from(text)
      .map((each) => `&#${each.codePointAt(0)};`)
      .join(''),
};

/**
 * Returns the names of the spellings in which a text has one of `secrets`; in base64 also after other bytes.
 */
export function secretsIn(text: string, secrets: readonly string[]): readonly string[] {
  const forms = [text, ...(text.match(/[A-Za-z0-9+/_-]{4,}/g) ?? []).flatMap(decodings)];
  return secrets.flatMap((secret) =>
    Object.entries(encodings)
      .filter(([, encode]) => forms.some((form) => form.toLowerCase().includes(encode(secret).toLowerCase())))
      .map(([name]) => `${name} of ${secret}`),
  );
}

function decodings(word: string): readonly string[] {
  return [0, 1, 2, 3].map((skipped) => Buffer.from(word.slice(skipped), 'base64').toString('utf8'));
}
