import type { FileHandle } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { NetworkError, printable, UntrustedError } from '../errors.ts';
import type { Attachments } from '../oci/artifact.ts';
import { algorithmOf, type Digest, hexOf } from '../oci/digest.ts';
import type { Image } from '../oci/image.ts';
import type { Reference } from '../oci/reference.ts';
import { readConfigBytes } from '../sys/config-files.ts';
import { hasCode } from '../sys/os-error.ts';
import type { Environment } from '../sys/os-path.ts';
import { judge, listed } from './decision.ts';
import { findGpgv, keyringOf, verifyGpg } from './gpg.ts';
import { isSignedBy, parsePublicKey, type PublicKey } from './keys.ts';
import type { ChosenRequirements, Material, Requirement } from './policy.ts';
import { reasonFor, Refusal } from './refusal.ts';
import type { SignaturePlaces } from './registries-d.ts';
import type { FoundSignatures, Signature, SignatureSearch } from './search.ts';
import { fits, namedOf, type SignedIdentity } from './signed-identity.ts';
import { parseStrictSimpleSigning, requireDigest, type SimpleSigning } from './simple-signing.ts';
import { signatureBytes, type SimpleSignature } from './sigstore.ts';

type SignedBy = Extract<Requirement, { type: 'signedBy' }>;
type SigstoreSigned = Extract<Requirement, { type: 'sigstoreSigned' }>;

/** Limit on the signatures of one manifest in a lookaside: that of containers/image. */
const MAX_LOOKASIDE = 128;

/** The inputs of a policy check. */
export interface PolicyContext {
  /** The requested name; undefined for a layout or an archive, whose signatures no policy checks. */
  readonly reference: Reference | undefined;
  /** For messages. */
  readonly name: string;
  /** The file of the policy. */
  readonly file: string;
  readonly chosen: ChosenRequirements;
  /** Undefined where `reference` is. */
  readonly signatures: SignaturePlaces | undefined;
  readonly environment: Environment;
  readonly search: SignatureSearch;
  readonly attachments: () => Promise<Attachments | undefined>;
  readonly temporaryFile: () => Promise<FileHandle>;
  readonly signal: AbortSignal;
  /** Set offline: then signatures come from the cache only, and `hint` says how to fill it. */
  readonly offline: { readonly hint: string } | undefined;
}

/**
 * Checks an image against all requirements that the policy has for it.
 *
 * @throws UntrustedError that names the failed requirement and the reason; errors of the registry if it did
 * not answer
 */
export async function checkRequirements(image: Image, context: PolicyContext): Promise<void> {
  const { chosen, signatures: where, reference } = context;
  for (const [index, requirement] of chosen.requirements.entries()) {
    const refuse = (reason: string, hint?: string): UntrustedError =>
      refusal(context, `requirement ${index + 1}, ${requirement.type}: ${reason}`, hint);
    switch (requirement.type) {
      case 'insecureAcceptAnything':
        break;
      case 'reject':
        throw refusedAlways(context);
      case 'signedBaseLayer':
        throw refuse('no program implements it, nor does containers/image');
      case 'signedBy':
      case 'sigstoreSigned': {
        if (!reference || !where)
          throw refuse('the signatures of layouts and archives are not checked, as with podman and skopeo');
        if (image.digest === undefined)
          throw refuse('the image has no digest that could be signed (registry version 1)');
        const check = { ...context, reference, where, refuse };
        await (requirement.type === 'signedBy'
          ? checkSignedBy(image, requirement, check)
          : checkSigstore(image, requirement, check));
      }
    }
  }
}

/** Makes the error of `reject`, which needs no request. */
export function refusedAlways(context: Pick<PolicyContext, 'name' | 'file' | 'chosen'>): UntrustedError {
  return refusal(context, 'reject');
}

function refusal(
  { name, file, chosen }: Pick<PolicyContext, 'name' | 'file' | 'chosen'>,
  reason: string,
  hint = 'ask the administrator of this machine, or see containers-policy.json(5); dlrootfs help trust',
): UntrustedError {
  return new UntrustedError(`the policy ${printable(file)} refuses ${name} (${chosen.scope}): ${reason}`, {
    code: 'POLICY',
    hint,
  });
}

interface SignatureCheck extends PolicyContext {
  readonly reference: Reference;
  readonly where: SignaturePlaces;
  readonly refuse: (reason: string, hint?: string) => UntrustedError;
}

async function checkSigstore(
  image: Image,
  requirement: SigstoreSigned,
  check: SignatureCheck,
): Promise<void> {
  const { by, logKeys, identity } = requirement;
  const { where, search, refuse, reference } = check;
  if (by === 'pki') throw refuse('"pki" is not supported', 'use podman or skopeo for this image');
  if (!where.attachments) {
    const { registry } = reference;
    const directory = printable(where.directory);
    const setting = 'use-sigstore-attachments: true';
    const file = `${directory}/${registry.replace(':', '_')}.yaml`;
    throw refuse(
      `no file in ${directory} has ${setting} for it, so its signatures do not count`,
      `write this into ${file}: {docker: {"${registry}": {${setting}}}}`,
    );
  }
  const logs = await materials(logKeys, check, publicKey);
  const keys = 'keys' in by ? await materials(by.keys, check, publicKey) : undefined;
  const authorities = 'fulcio' in by ? await materials([by.fulcio.authorities], check, decodeText) : [];
  const certificates = keys && logs.length === 0 ? undefined : await import('./policy-certificates.ts');
  const verify = (signature: Signature, digest: Digest): void => {
    if (signature.form !== 'simple') throw new Refusal('it is a bundle, which no policy checks');
    if (keys) {
      const key = keyOf(signature, keys);
      if (logs.length > 0) certificates!.requireLogged(signature, key, logs);
    } else if ('fulcio' in by)
      certificates!.requireCertified(signature, { ...by.fulcio, authorities: authorities[0]! }, logs);
    requireClaim(
      parseStrictSimpleSigning(signature.payload, 'cosign container image signature'),
      digest,
      identity,
      reference,
    );
  };
  const { accepted, reasons, unanswered } = await judge(
    image,
    (digest) => search.tagged(digest),
    verify,
    false,
  );
  if (accepted.length > 0) return;
  throw unanswered ?? refuseFor(reasons, 'it has no signature', check);
}

function refuseFor(
  reasons: readonly string[],
  none: string,
  { refuse, offline }: SignatureCheck,
): UntrustedError {
  if (reasons.length > 0) return refuse(listed(reasons));
  return offline ? refuse('the cache has no signature of it', offline.hint) : refuse(none);
}

/**
 * Returns the key that made the signature.
 *
 * @throws Refusal if none of the keys did
 */
function keyOf(signature: SimpleSignature, keys: readonly PublicKey[]): PublicKey {
  const bytes = signatureBytes(signature);
  const key = keys.find((each) => isSignedBy(each, signature.payload, bytes));
  if (key) return key;
  throw new Refusal(
    `it was not made with ${keys.length === 1 ? `the key ${keys[0]!.name}` : 'any of the keys'}`,
  );
}

/** @throws Refusal unless the claim is for this manifest, and for a name that `identity` accepts */
function requireClaim(
  claim: SimpleSigning,
  digest: Digest,
  identity: SignedIdentity,
  reference: Reference,
): void {
  requireDigest([claim.digest], digest);
  if (!fits(identity, namedOf(reference), claim.reference))
    throw new Refusal(
      `it is for the name ${printable(claim.reference, 200)}, which the "signedIdentity" of the policy does not accept`,
    );
}

async function checkSignedBy(image: Image, requirement: SignedBy, check: SignatureCheck): Promise<void> {
  const { keyType, keys, identity } = requirement;
  const { refuse, environment, reference, temporaryFile, signal } = check;
  if (keyType !== 'GPGKeys') throw refuse(`the keyType ${keyType} is implemented by no program`);
  const gpgv = findGpgv(environment);
  if (gpgv === undefined)
    throw refuse('it needs the program gpgv, which was not found', 'install gpgv (apt-get install gpgv)');
  const keyring = keyringOf(await materials(keys, check, (bytes) => bytes));
  if (keyring.length === 0) throw refuse('its keys are no keys of GPG');
  const run = { gpgv, keyring, temporaryFile, signal };
  const verify = async (signature: Signature, digest: Digest): Promise<void> => {
    if (signature.form !== 'gpg') throw new Refusal('it is not by GPG');
    const payload = await verifyGpg(signature.bytes, run);
    requireClaim(
      parseStrictSimpleSigning(payload, 'atomic container signature'),
      digest,
      identity,
      reference,
    );
  };
  const { accepted, reasons, unanswered } = await judge(
    image,
    (digest) => lookaside(digest, check),
    verify,
    false,
  );
  if (accepted.length > 0) return;
  const none = `it has no signature in the lookaside ${printable(check.where.lookaside)}`;
  throw unanswered ?? refuseFor(reasons, none, check);
}

/** Finds the GPG signatures in the lookaside of containers/image: `BASE/PATH@sha256=HEX/signature-N`. */
async function lookaside(digest: Digest, check: SignatureCheck): Promise<FoundSignatures> {
  const { where, reference } = check;
  const candidates: FoundSignatures['candidates'][number][] = [];
  const failures: unknown[] = [];
  try {
    for (let number = 1; number <= MAX_LOOKASIDE; number += 1) {
      const base = `${where.lookaside.replace(/\/+$/, '')}/${reference.repository}`;
      const place = `${base}@${algorithmOf(digest)}=${hexOf(digest)}/signature-${number}`;
      const bytes = await lookasideFile(place, digest, check);
      if (!bytes) break;
      const signature = { form: 'gpg', place, bytes } as const;
      candidates.push({ place, load: () => Promise.resolve([signature]) });
    }
  } catch (error) {
    failures.push(error);
  }
  return { candidates, failures };
}

/**
 * Reads a file of the lookaside; undefined if it does not exist.
 *
 * @param digest the signed manifest
 * @throws Refusal for an address that is not supported; errors of the file system and of the network
 */
async function lookasideFile(
  place: string,
  digest: Digest,
  { attachments, signal }: PolicyContext,
): Promise<Uint8Array | undefined> {
  const url = URL.parse(place);
  if (url?.username || url?.password) throw new Refusal('the address of the lookaside has a password');
  if (url?.protocol === 'file:') {
    try {
      return await readConfigBytes(fileURLToPath(url), { named: false, signal });
    } catch (error) {
      if (hasCode(error, 'ENOENT') || hasCode(error, 'ENOTDIR')) return undefined;
      throw error;
    }
  }
  if (url?.protocol !== 'http:' && url?.protocol !== 'https:')
    throw new Refusal(`the lookaside ${printable(place)} is no address of http, https or file`);
  const source = await attachments();
  if (source?.elsewhere) return await source.elsewhere(url, digest);
  throw new NetworkError(`cannot read ${printable(place)}: this image has no registry with a connection`);
}

/**
 * Reads the files that a policy names, or the bytes in it.
 *
 * @throws UntrustedError that names the file
 */
async function materials<T>(
  all: readonly Material[],
  { refuse, signal }: SignatureCheck,
  parse: (bytes: Buffer, name: string) => T,
): Promise<T[]> {
  const results: T[] = [];
  for (const material of all) {
    const name = 'file' in material ? printable(material.file) : 'in the policy';
    try {
      const bytes =
        'file' in material
          ? await readConfigBytes(material.file, { named: false, signal })
          : Buffer.from(material.bytes);
      results.push(parse(bytes, name));
    } catch (error) {
      signal.throwIfAborted();
      throw refuse(`cannot use ${name}: ${reasonFor(error)}`, 'correct the file that the policy names');
    }
  }
  return results;
}

const publicKey = (bytes: Buffer, name: string): PublicKey => parsePublicKey(bytes.toString('utf8'), name);
const decodeText = (bytes: Buffer): string => bytes.toString('utf8');
