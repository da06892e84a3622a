import type { Image } from './image.ts';
import { noPlatform } from './image-index.ts';
import { formatPlatform, platformRank } from './platform.ts';
import type { Platform } from './platform.ts';

/**
 * What a person should know of an image that is not exactly for the platform that was wanted; undefined when it is. `asked`: the
 * platform was named on purpose. Throws NotFoundError when such an image does not run there at all.
 */
export function platformNotice(
  image: Pick<Image, 'platform'>,
  wanted: Platform,
  asked: boolean,
  name: string,
): string | undefined {
  const { platform } = image;
  if (platform.os === '' || platform.architecture === '') return undefined;
  const rank = platformRank(platform, wanted);
  if (rank === undefined && asked) throw noPlatform(wanted, [platform], name);
  if (rank !== undefined && platform.architecture === wanted.architecture) return undefined;
  return `${name} is an image for ${formatPlatform(platform)}, not ${formatPlatform(wanted)}`;
}
