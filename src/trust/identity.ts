import { printable, UsageError } from '../errors.ts';
import { Refusal } from './refusal.ts';

/** A demand on a text in a certificate: equal, or matched by a regular expression. */
interface Wanted {
  readonly matches: (text: string) => boolean;
  /** For messages. */
  readonly shown: string;
}

/** The identity that a certificate must name, as by cosign's flags. */
export interface Identity {
  readonly subject: Wanted;
  readonly issuer: Wanted;
}

export interface IdentityRequest {
  /** The address of a workflow, or a mail address: exact, or a regular expression. */
  readonly certificateIdentity?: string | undefined;
  readonly certificateIdentityRegexp?: string | undefined;
  /** The provider that issued the identity, likewise. */
  readonly certificateOidcIssuer?: string | undefined;
  readonly certificateOidcIssuerRegexp?: string | undefined;
}

/**
 * Returns undefined if no identity is demanded.
 *
 * @throws UsageError for half an identity
 */
export function parseIdentity(request: IdentityRequest): Identity | undefined {
  const subject = wanted(
    request.certificateIdentity,
    request.certificateIdentityRegexp,
    '--certificate-identity',
  );
  const issuer = wanted(
    request.certificateOidcIssuer,
    request.certificateOidcIssuerRegexp,
    '--certificate-oidc-issuer',
  );
  if (subject && issuer) return { subject, issuer };
  if (!subject && !issuer) return undefined;
  const [given, missing] = subject
    ? ['--certificate-identity', '--certificate-oidc-issuer']
    : ['--certificate-oidc-issuer', '--certificate-identity'];
  throw new UsageError(`${given} needs ${missing}: any provider could vouch for the same name`, {
    hint: `add ${missing}, or ${missing}-regexp`,
  });
}

function wanted(exact: string | undefined, regexp: string | undefined, flag: string): Wanted | undefined {
  if (exact !== undefined && regexp !== undefined)
    throw new UsageError(`${flag} contradicts ${flag}-regexp`, { hint: 'leave one of them out' });
  if (exact !== undefined) return { matches: (text) => text === exact, shown: exact };
  if (regexp === undefined) return undefined;
  const compiled = compile(regexp, `${flag}-regexp`);
  return { matches: (text) => compiled.test(text), shown: regexp };
}

/** Syntax of Go's regular expressions that means something else in JavaScript. */
const FOREIGN = /\\[AzQEpPCa]|\[\[:|\(\?(?!:)/;

/**
 * Compiles a regular expression in Go's syntax, as far as JavaScript shares it. It matches anywhere in the
 * text, as in cosign.
 *
 * @throws UsageError
 */
function compile(text: string, flag: string): RegExp {
  const [, flags = '', rest = ''] = /^(?:\(\?([ims]+)\))?([^]*)$/.exec(text)!;
  const refuse = (reason: string): UsageError =>
    new UsageError(`${flag} ${printable(text, 160)} cannot be used: ${reason}`, {
      hint: 'use ^, $, ., *, +, ?, |, (…), […], \\d, \\w and \\s alone',
    });
  const [foreign] = FOREIGN.exec(rest) ?? [];
  if (foreign !== undefined) throw refuse(`${foreign} is not supported`);
  try {
    return new RegExp(rest, flags);
  } catch (error) {
    throw refuse(printable(error instanceof Error ? error.message : '', 120));
  }
}

/** @throws Refusal unless the certificate is for the identity */
export function requireIdentity(
  { subject, issuer }: Identity,
  found: { readonly subject: string | undefined; readonly issuer: string | undefined },
): void {
  const isRight =
    found.subject !== undefined &&
    found.issuer !== undefined &&
    subject.matches(found.subject) &&
    issuer.matches(found.issuer);
  if (isRight) return;
  const [holder, provider] = [found.subject, found.issuer].map((text) => printable(text ?? 'nobody', 120));
  throw new Refusal(`its certificate is for ${holder}, by the provider ${provider}`);
}
