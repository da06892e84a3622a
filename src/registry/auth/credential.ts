import { printable } from '../../errors.ts';

/** What proves to a registry who we are; `source` says where it was found, for people. */
export type Credential =
  | {
      readonly kind: 'password';
      readonly username: string;
      readonly password: string;
      readonly source: string;
    }
  /** An OAuth2 refresh token, exchanged at the token server by POST. */
  | { readonly kind: 'identity-token'; readonly token: string; readonly source: string }
  /** A Bearer token, sent as it is. */
  | { readonly kind: 'registry-token'; readonly token: string; readonly source: string };

/** Names a credential without giving it away. */
export function describeCredential(credential: Credential): string {
  const source = printable(credential.source, 200);
  if (credential.kind !== 'password') return `the ${credential.kind.replace('-', ' ')} from ${source}`;
  return `the credentials of ${printable(credential.username, 80)} from ${source}`;
}
