/** What `dlrootfs version` prints; a test holds it to package.json. 1.4.0 is the original's. */
export const version = '2.0.0';

/** The oldest Node that the program runs on: `engines` in package.json. */
export const leastNode = { major: 22, minor: 19 };
