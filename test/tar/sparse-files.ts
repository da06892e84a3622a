import { sparse } from '../support/archive.ts';

/** Sparse files in the two formats whose map may need more than the header. */
export const sparseFiles = [
  sparse(
    'gnu',
    9000,
    [
      [0, 'a'],
      [1000, 'b'],
      [2000, 'c'],
      [3000, 'd'],
      [4000, 'e'],
    ],
    'gnu',
  ),
  sparse(
    'posix',
    9000,
    [
      [0, 'a'],
      [8999, 'b'],
    ],
    '1.0',
  ),
];
