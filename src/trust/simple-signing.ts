import { Digest } from '../oci/digest.ts';
import { isObject, parseJsonObject } from '../oci/json.ts';
import { printable } from '../errors.ts';
import { Refusal } from './refusal.ts';
import { parseStrictJson, requireMembers } from './strict-json.ts';

/** `critical.type` of a payload: signed by cosign and skopeo with Sigstore, or by GPG. */
export type PayloadType = 'cosign container image signature' | 'atomic container signature';

/** The claim of a signed payload: containers' container-signature(5), cosign's SIGNATURE_SPEC.md. */
export interface SimpleSigning {
  /** The manifest that is signed. */
  readonly digest: Digest;
  /** The name that the signer gave the image. */
  readonly reference: string;
}

/**
 * Parses a payload whose signature is verified already.
 *
 * @throws Refusal, IntegrityError
 */
export function parseSimpleSigning(payload: Uint8Array, type: PayloadType): SimpleSigning {
  const { critical } = parseJsonObject(payload, 'the payload');
  if (!isObject(critical)) throw new Refusal('its payload has no "critical"');
  const { type: found, image, identity } = critical;
  if (found !== type) throw new Refusal(`its payload is of type ${shown(found)}, not "${type}"`);
  const digest = isObject(image) ? image['docker-manifest-digest'] : undefined;
  const reference = isObject(identity) ? identity['docker-reference'] : undefined;
  if (typeof reference !== 'string') throw new Refusal('its payload has no "docker-reference"');
  return { digest: Digest.parse(digest, 'the digest in its payload'), reference };
}

/** @throws Refusal unless the signature is for this manifest */
export function requireDigest(signed: readonly Digest[], digest: Digest): void {
  if (signed.includes(digest)) return;
  throw new Refusal(`it is for ${signed.length === 0 ? 'no image' : `another image, ${signed[0]!}`}`);
}

/**
 * Parses a payload as `parseSimpleSigning` does, but by the rules of containers/image: no member is unknown
 * or repeated.
 *
 * @throws errors of any kind
 */
export function parseStrictSimpleSigning(payload: Uint8Array, type: PayloadType): SimpleSigning {
  const document = requireMembers(parseStrictJson(payload, 'its payload'), 'its payload', {
    required: ['critical', 'optional'],
  });
  const critical = requireMembers(document['critical'], '"critical"', {
    required: ['type', 'image', 'identity'],
  });
  requireMembers(critical['image'], '"image"', { required: ['docker-manifest-digest'] });
  requireMembers(critical['identity'], '"identity"', { required: ['docker-reference'] });
  return parseSimpleSigning(payload, type);
}

function shown(value: unknown): string {
  return printable(JSON.stringify(value) ?? 'none', 80);
}
