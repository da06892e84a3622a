import { NetworkError } from '../errors.ts';
import { parseJsonObject } from '../oci/json.ts';
import { readAtMost } from './http/body.ts';
import type { Endpoint } from './endpoint.ts';
import type { Timeouts } from './registry-options.ts';

const MAX_PAGE_BYTES = 16 * 1024 * 1024;
const MAX_PAGES = 10_000;

/**
 * The query of the next page, by a `Link: <…>; rel="next"` header (RFC 8288); undefined on the last page, and where the link leads to
 * another server or is no tag list.
 */
export function nextPage(link: string | undefined, page: URL): string | undefined {
  const [, target] = /<([^>]*)>\s*;[^,]*\brel="?next"?/i.exec(link ?? '') ?? [];
  const next = target === undefined ? null : URL.parse(target, page.href);
  if (!next || next.origin !== page.origin || !next.pathname.endsWith('/tags/list')) return undefined;
  return next.search;
}

/** The tags of a page; names that are no tags are left out. */
export function tagsOf(document: unknown): readonly string[] {
  if (!Array.isArray(document)) return [];
  return document.filter((tag) => typeof tag === 'string' && /^\w[\w.-]{0,127}$/.test(tag));
}

/** All tags of a repository, page by page, in the registry's order. Throws NetworkError when the pages go in a circle. */
export async function* listTags(
  endpoint: Endpoint,
  repository: string,
  timeouts: Timeouts,
  signal: AbortSignal,
): AsyncGenerator<string, void> {
  const subject = `the list of tags of ${repository}`;
  const seen = new Set<string>();
  for (let query: string | undefined = ''; query !== undefined;) {
    if (seen.has(query) || seen.size >= MAX_PAGES) throw new NetworkError(`${subject} has no end`);
    seen.add(query);
    const page: { readonly tags: readonly string[]; readonly next: string | undefined } = await endpoint.ask(
      { path: `tags/list${query}`, subject },
      async (response) => {
        const body = await readAtMost(response, MAX_PAGE_BYTES, timeouts, signal);
        return {
          tags: tagsOf(parseJsonObject(body, subject)['tags']),
          next: nextPage(response.header('link'), response.url),
        };
      },
      signal,
    );
    yield* page.tags;
    query = page.next;
  }
}
