/** What `dlrootfs version` prints, the version that the original printed; a test holds it to package.json. */
export const version = '1.4.0';
