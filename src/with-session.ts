import { Store } from './blob/store.ts';
import { nativeCalls } from './native-calls.ts';
import type { Session } from './oci/image.ts';
import type { PullOptions } from './options.ts';
import { spoolPlace } from './rootfs/spool-place.ts';
import type { ImageSource } from './source.ts';
import { parseImage } from './source.ts';

export interface Opened {
  readonly source: ImageSource;
  readonly session: Session;
  readonly store: Store;
}

/** Opens store and session for an image, hands them to `use`, and closes them whatever happens. */
export async function withSession<T>(options: PullOptions, use: (opened: Opened) => Promise<T>): Promise<T> {
  const { report, destination } = options;
  const source = parseImage(options);
  const spoolDirectory = await spoolPlace(destination);
  const store = await Store.open({ ...options.store, native: nativeCalls(), spoolDirectory, report });
  try {
    report({ type: 'session', name: source.name });
    const session = await source.open(store, spoolDirectory);
    try {
      return await use({ source, session, store });
    } finally {
      await session.close();
    }
  } finally {
    await store.close();
  }
}
