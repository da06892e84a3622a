import { TrustedRoot } from '@sigstore/protobuf-specs';
import { type TrustMaterial, toTrustMaterial } from '@sigstore/verify';
import { printable, UsageError } from '../errors.ts';
import { isObject, parseJsonObject, textOf } from '../oci/json.ts';
import { readNamedFile } from '../sys/config-files.ts';
import { reasonOf } from '../sys/os-error.ts';
import publicGood from './public-good.json' with { type: 'json' };

/** The authorities that issue certificates, log entries and time stamps. */
export interface Authorities {
  readonly material: TrustMaterial;
  /** The age of the embedded authorities, for errors; undefined for those of a file. */
  readonly age: string | undefined;
}

const MEDIA_TYPE = /^application\/vnd\.dev\.sigstore\.trustedroot(?:\.v0\.\d+\+json|\+json;version=0\.\d+)$/;

/** Days after which errors call the embedded root old: its keys change about once a year. */
const OLD_DAYS = 180;

const TRUSTED_ROOT_HINT = 'name a trusted_root.json, as cosign and gh attestation trusted-root write it';

/**
 * Reads the authorities in a file; without a file, returns the embedded ones of Sigstore's public good
 * instance.
 *
 * @throws UsageError
 */
export async function readAuthorities(file: string | undefined, signal?: AbortSignal): Promise<Authorities> {
  if (file === undefined)
    return { material: materialOf(publicGood.trustedRoot), age: ageOf(publicGood.date) };
  const text = await readNamedFile(file, 'the trusted root', TRUSTED_ROOT_HINT, signal);
  try {
    return { material: materialOf(parseJsonObject(Buffer.from(text), 'it')), age: undefined };
  } catch (error) {
    const reason = printable(reasonOf(error), 160);
    throw new UsageError(`cannot use the trusted root ${printable(file)}: ${reason}`, {
      hint: TRUSTED_ROOT_HINT,
      cause: error,
    });
  }
}

function ageOf(date: string): string {
  const days = Math.floor((Date.now() - Date.parse(date)) / 86_400_000);
  const old = days > OLD_DAYS ? `, ${days} days old: a newer one is passed by --trusted-root` : '';
  return `the embedded trusted root is of ${date}${old}`;
}

function materialOf(json: Readonly<Record<string, unknown>>): TrustMaterial {
  const mediaType = textOf(json['mediaType']) ?? '';
  if (!MEDIA_TYPE.test(mediaType)) throw new Error(`it is of type ${mediaType || 'none'}, no trusted root`);
  const wrong = LISTS.find((key) => !isListOfObjects(json[key] ?? []));
  if (wrong !== undefined) throw new Error(`"${wrong}" is no list of objects`);
  const root = TrustedRoot.fromJSON(json);
  const logs = [...root.tlogs, ...root.ctlogs].map(({ publicKey }) => publicKey?.validFor);
  // trust_root.proto: "the start MUST be set".
  if (logs.some((validFor) => validFor?.start === undefined))
    throw new Error('the key of a log has no start of its validity');
  if (root.certificateAuthorities.length === 0) throw new Error('it has no certificate authority');
  const authorities = [...root.certificateAuthorities, ...root.timestampAuthorities];
  if (authorities.some(({ certChain }) => certChain === undefined || certChain.certificates.length === 0))
    throw new Error('an authority has no certificates');
  const times = [...logs, ...authorities.map(({ validFor }) => validFor)].flatMap((validFor) => [
    validFor?.start,
    validFor?.end,
  ]);
  if (times.some((time) => time !== undefined && Number.isNaN(time.getTime())))
    throw new Error('a time in it is malformed');
  return toTrustMaterial(root);
}

/** Lists of a trusted root. The library takes another value for an empty list, which demands no log. */
const LISTS = ['certificateAuthorities', 'timestampAuthorities', 'tlogs', 'ctlogs'];

function isListOfObjects(value: unknown): boolean {
  return Array.isArray(value) && value.every(isObject);
}
