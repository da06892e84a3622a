/**
 * Returns the query of the next page from a `Link: <…>; rel="next"` header (RFC 8288); undefined on the last
 * page, and if the link leads to another server or another list.
 *
 * @param list the end of the path of each page
 */
export function nextPage(link: string | undefined, page: URL, list: string): string | undefined {
  const [, target] = /<([^>]*)>\s*;[^,]*\brel="?next"?/i.exec(link ?? '') ?? [];
  const next = target === undefined ? null : URL.parse(target, page.href);
  if (!next || next.origin !== page.origin || !next.pathname.endsWith(list)) return undefined;
  return next.search;
}
