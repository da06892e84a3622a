/** The output of `dlrootfs version`; a test compares it with package.json. 1.4.0 is the original's. */
export const version = '2.0.0';

/**
 * The releases of Node that the program runs on: these, newer ones of their major versions, and all after the
 * last; `engines` in package.json.
 */
export const leastNodes = ['22.22.2', '24.15.0', '26.0.0'];

/** Returns true for a supported release. Uses the syntax of Node 12. */
export function runsOn(node: string): boolean {
  const [major = 0, minor = 0, patch = 0] = node.split('.').map(Number);
  return leastNodes.some((least, index) => {
    const [leastMajor = 0, leastMinor = 0, leastPatch = 0] = least.split('.').map(Number);
    if (major !== leastMajor) return major > leastMajor && index === leastNodes.length - 1;
    return minor === leastMinor ? patch >= leastPatch : minor > leastMinor;
  });
}
