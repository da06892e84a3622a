/** Whether text can stand in a line of a configuration file: no reader takes any of it for the end of the line. */
export function isOneLine(text: string): boolean {
  // eslint-disable-next-line no-control-regex
  return !/[\u0000-\u0008\u000a-\u001f\u007f\u0085\u2028\u2029]/u.test(text);
}

/** Text made fit for a comment, where nobody but people reads it. */
export function commented(text: string): string {
  return JSON.stringify(text)
    .slice(1, -1)
    .replaceAll(/[\u007f\u0085\u2028\u2029]/g, '?');
}
