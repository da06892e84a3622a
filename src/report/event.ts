import type { Layer } from '../oci/image.ts';

/** What a pull tells while it runs. Ids are 64 hex digits; sizes are bytes; layers come base first. */
export type PullEvent =
  /** A session with the registry begins; `name` is `library/x` for Hub and `host[:port]/path` otherwise. */
  | { readonly type: 'session'; readonly name: string }
  | { readonly type: 'image'; readonly id: string; readonly layers: readonly Layer[] }
  /** The blob of layer `index` is being fetched, or was found in the store. */
  | { readonly type: 'layer-start'; readonly index: number; readonly cached: boolean }
  /** `received` is the total so far, of what is on disk. */
  | { readonly type: 'layer-progress'; readonly index: number; readonly received: number }
  /** The blob is whole and its digest is right. */
  | { readonly type: 'layer-fetched'; readonly index: number }
  | { readonly type: 'layer-apply'; readonly index: number }
  | { readonly type: 'layer-applied'; readonly index: number; readonly entries: number }
  /** DIR is complete. */
  | { readonly type: 'done'; readonly reference: string; readonly destination: string }
  /** A configuration was written beside DIR; `command` starts the container. */
  | { readonly type: 'runtime-config'; readonly file: string; readonly command: string }
  /** One line a person should read; the run goes on. */
  | { readonly type: 'notice'; readonly message: string }
  /** Only with -v: requests (redacted), decisions, timings. */
  | { readonly type: 'debug'; readonly message: string };

export type Report = (event: PullEvent) => void;
