import { UntrustedError, UsageError } from '../errors.ts';
import type { Signer } from '../oci/artifact.ts';
import type { Digest } from '../oci/digest.ts';
import type { Image } from '../oci/image.ts';
import { parseBundle, signedManifests } from './bundle.ts';
import { judge, listed } from './decision.ts';
import { type Identity, type IdentityRequest, parseIdentity, requireIdentity } from './identity.ts';
import { isSignedBy, type PublicKey, readPublicKey } from './keys.ts';
import { Refusal } from './refusal.ts';
import type { Signature, SignatureSearch } from './search.ts';
import { bundleOfAnnotations, signatureBytes, verifyCertified } from './sigstore.ts';
import { parseSimpleSigning, requireDigest } from './simple-signing.ts';
import { type Authorities, readAuthorities } from './trusted-root.ts';

/** Holders of keys, or an identity: one of these signers must have signed the image. */
export interface SignerRequest extends IdentityRequest {
  /** Files with a public key in PEM, such as cosign.pub; one of the keys suffices. */
  readonly verifyKeys?: readonly string[] | undefined;
  /** A trusted_root.json with the authorities for identities. Default: Sigstore's public ones. */
  readonly trustedRoot?: string | undefined;
}

/** The demanded signers. */
type Demand =
  | { readonly keys: readonly PublicKey[] }
  | { readonly identity: Identity; readonly authorities: Authorities };

/** Checks that an image is signed by one of the demanded signers. */
export class WantedSigners {
  readonly #demand: Demand;

  private constructor(demand: Demand) {
    this.#demand = demand;
  }

  /**
   * Reads the keys or authorities; undefined if no signer is demanded.
   *
   * @throws UsageError
   */
  static async read(request: SignerRequest, signal: AbortSignal): Promise<WantedSigners | undefined> {
    const { verifyKeys = [], trustedRoot } = request;
    const identity = parseIdentity(request);
    if (identity && verifyKeys.length > 0)
      throw new UsageError('--verify-key contradicts --certificate-identity', {
        hint: 'leave one of them out',
      });
    if (trustedRoot !== undefined && !identity)
      throw new UsageError('--trusted-root has no effect without --certificate-identity', {
        hint: 'leave it out, or name the identity that must have signed the image',
      });
    if (identity) {
      const authorities = await readAuthorities(trustedRoot, signal);
      return new WantedSigners({ identity, authorities });
    }
    if (verifyKeys.length === 0) return undefined;
    const keys = await Promise.all(verifyKeys.map((file) => readPublicKey(file, signal)));
    return new WantedSigners({ keys });
  }

  /**
   * Returns the valid signatures by a demanded signer: of an index that leads to the image's manifest, or of
   * the manifest.
   *
   * @param all check every signature; else stop at the first valid one
   * @param offline set if signatures come from the cache only; `hint` says how to fill it
   * @throws UntrustedError without any, with the reason for each; errors of the registry if it did not answer
   */
  async of(
    image: Pick<Image, 'digest' | 'indexes'>,
    name: string,
    search: SignatureSearch,
    all: boolean,
    offline: { readonly hint: string } | undefined,
  ): Promise<readonly [Signer, ...Signer[]]> {
    const { accepted, reasons, unanswered } = await judge(
      image,
      (digest) => search.find(digest),
      (signature, digest) => this.#check(signature, digest),
      all,
    );
    const [first, ...others] = accepted;
    if (first) return [first, ...others];
    throw unanswered ?? this.#refusal(name, reasons, offline);
  }

  #refusal(
    name: string,
    reasons: readonly string[],
    offline: { readonly hint: string } | undefined,
  ): UntrustedError {
    const refuse = (why: string, code: string, hint?: string): UntrustedError =>
      new UntrustedError(`${name} is not signed by ${this.#shown()}: ${why}`, { code, hint });
    if (reasons.length === 0)
      return offline
        ? refuse('the cache has no signature of it', 'NO_SIGNATURE', offline.hint)
        : refuse('it has no signature', 'NO_SIGNATURE');
    const age = 'authorities' in this.#demand ? this.#demand.authorities.age : undefined;
    const hint = age === undefined ? undefined : `check the identity with the publisher; ${age}`;
    return refuse(listed(reasons), 'BAD_SIGNATURE', hint);
  }

  /** Returns the demanded signers, for messages. */
  #shown(): string {
    if ('identity' in this.#demand) {
      const { subject, issuer } = this.#demand.identity;
      return `${subject.shown} (${issuer.shown})`;
    }
    const { keys } = this.#demand;
    return keys.length === 1 ? `the key ${keys[0]!.name}` : 'any of the keys';
  }

  /** @throws errors of any kind: the reason why the signature is refused */
  #check(signature: Signature, digest: Digest): Signer {
    const { place } = signature;
    if (signature.form === 'bundle') {
      const parsed = parseBundle(signature.bytes);
      const by = this.#by(
        () => ({ bytes: parsed.signedBytes, signature: parsed.signature }),
        (material) => verifyCertified(parsed.bundle, material),
      );
      requireDigest(signedManifests(parsed.statement), digest);
      return { signed: digest, place, ...by };
    }
    if (signature.form === 'gpg') throw new Refusal('it is by GPG');
    const { payload } = signature;
    const by = this.#by(
      () => ({ bytes: payload, signature: signatureBytes(signature) }),
      (material) => verifyCertified(bundleOfAnnotations(signature), material, payload),
    );
    const claim = parseSimpleSigning(payload, 'cosign container image signature');
    requireDigest([claim.digest], digest);
    return { signed: digest, place, ...by, reference: claim.reference };
  }

  #by(
    signed: () => { readonly bytes: Uint8Array; readonly signature: Uint8Array },
    verify: (material: Authorities['material']) => ReturnType<typeof verifyCertified>,
  ): Pick<Signer, 'key' | 'identity' | 'issuer'> {
    if ('keys' in this.#demand) {
      const { bytes, signature } = signed();
      const key = this.#demand.keys.find((each) => isSignedBy(each, bytes, signature));
      if (key) return { key: key.name };
      throw new Refusal(`it was not made with ${this.#shown()}`);
    }
    const { identity, authorities } = this.#demand;
    const { subject, issuer } = verify(authorities.material);
    requireIdentity(identity, { subject, issuer });
    return { identity: subject, issuer };
  }
}
