/** What `dlrootfs version` prints, the version that the original printed; a test holds it to package.json. */
export const version = '1.4.0';

/** The oldest Node that the program runs on: `engines` in package.json. */
export const leastNode = { major: 22, minor: 19 };
