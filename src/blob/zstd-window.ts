/** The longest window, as a power of two in bytes: 128 MiB, what the zstd program takes without `--long`. */
export const WINDOW_LOG_MAX = 27;
export const WINDOW_TOO_LARGE = 'needs a window of more than 128 MiB, the most that is taken';
