/** Name of a git object: 40 hex digits, SHA-1 of its type, size and content. */
export type ObjectID = string & { readonly objectID: unique symbol };

/** The same as bytes: so many. */
export const idSize = 20;
