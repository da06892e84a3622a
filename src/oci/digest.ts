import { IntegrityError } from '../errors.ts';

/** `algorithm:hex` of bytes as they travel (compressed), as in the OCI image specification, descriptor.md. */
export type Digest = string & { readonly digest: unique symbol };

/** `algorithm:hex` of a layer's uncompressed tar: the image config's `rootfs.diff_ids`. */
export type DiffID = string & { readonly diffID: unique symbol };
