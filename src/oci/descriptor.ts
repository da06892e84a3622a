import { IntegrityError } from '../errors.ts';
import { Digest } from './digest.ts';
import { isObject, textMapOf, textOf, textsOf, type JsonObject } from './json.ts';
import { mediaTypeOf } from './media-types.ts';
import { normalisePlatform, type Platform } from './platform.ts';

/** The description of a blob or manifest in a manifest or index (OCI descriptor.md). */
export interface Descriptor {
  /** Lower case, without parameters; may be empty. */
  readonly mediaType: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  /** Other places to download the blob from; foreign layers have them. */
  readonly urls?: readonly string[] | undefined;
  readonly annotations?: Readonly<Record<string, string>> | undefined;
  readonly artifactType?: string | undefined;
  /** Normalised; only in an index. */
  readonly platform?: Platform | undefined;
}

/** Reads a descriptor; throws IntegrityError that names `what` unless digest and size are well-formed. */
export function parseDescriptor(value: unknown, what: string): Descriptor {
  if (!isObject(value)) throw new IntegrityError(`${what} is missing or not an object`);
  const size = value['size'];
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw new IntegrityError(`the size of ${what} is not a whole number of bytes`);
  }
  const mediaType = value['mediaType'];
  if (mediaType !== undefined && mediaType !== null && typeof mediaType !== 'string') {
    throw new IntegrityError(`the media type of ${what} is not a string`);
  }
  return {
    mediaType: mediaTypeOf(mediaType ?? ''),
    digest: Digest.parse(value['digest'], `the digest of ${what}`),
    size,
    urls: textsOf(value['urls']),
    annotations: textMapOf(value['annotations']),
    artifactType: textOf(value['artifactType']),
    platform: isObject(value['platform']) ? platformOf(value['platform']) : undefined,
  };
}

/** An entry without system and architecture has no platform: its config names it. */
function platformOf(value: JsonObject): Platform | undefined {
  const os = textOf(value['os']) ?? '';
  const architecture = textOf(value['architecture']) ?? '';
  if (os === '' && architecture === '') return undefined;
  return normalisePlatform({
    os,
    architecture,
    variant: textOf(value['variant']),
    osVersion: textOf(value['os.version']),
  });
}
