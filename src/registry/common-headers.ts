import { version } from '../version.ts';

/** What every request says. `identity`: offsets and digests are of the bytes that are stored. */
export const commonHeaders = { 'user-agent': `dlrootfs/${version}`, 'accept-encoding': 'identity' };
