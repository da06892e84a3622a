import { setTimeout as sleep } from 'node:timers/promises';
import { IntegrityError } from '../errors.ts';
import type { Digest } from '../oci/digest.ts';
import type { Checksum, Layer, LocalBlob, RemoteLayer } from '../oci/image.ts';
import type { Report } from '../report/event.ts';
import { osErrorOf, reasonOf } from '../sys/os-error.ts';
import type { RetryPolicy } from '../sys/retry.ts';
import { BlobBuffer, type BufferFile } from './buffer.ts';
import type { Claim } from './claim.ts';
import type { ByteReader } from './decode/byte-reader.ts';
import { BlobHash, Download } from './download.ts';
import type { RequestQueue } from '../sys/request-queue.ts';
import type { Store } from './store.ts';
import { CorruptBlobError } from './transfer.ts';

export interface FetchOptions {
  readonly store: Store;
  readonly retryPolicy: RetryPolicy;
  readonly requests: RequestQueue;
  readonly signal: AbortSignal;
  readonly report: Report;
  /**
   * Hands out no layer until every blob is verified. Used if DIR has files: they stay if a download fails.
   * Each blob can be read again.
   */
  readonly hold?: boolean | undefined;
  /** A blob was corrupt in an earlier attempt: cached blobs are checked before they are read. */
  readonly careful?: boolean | undefined;
}

/** Options and limits that the blobs of one image share. */
export interface BlobContext extends FetchOptions {
  /**
   * Resolves when the blob of a layer may be opened: each one keeps a file open until the layer is released.
   */
  readonly mayOpen: (index: number) => Promise<void>;
}

/**
 * A download whose first request, if it needs any, has ended: the blob or its first piece is received. `end`
 * receives the rest, and checks the digest.
 */
interface LayerDownload {
  end(): Promise<void>;
}

/** Milliseconds between two progress events about the same blob. */
const PROGRESS_INTERVAL = 100;

/** Milliseconds to wait for the rest of a blob of unknown size. */
const UNKNOWN_END_TIMEOUT = 10_000;

/** The blob of a layer, from the store or from a download that may still run. */
export class LayerBlob {
  /**
   * Resolves when the blob is complete and its digest right. That of a cached or local blob is checked by
   * its reader, so it resolves when the file is open.
   */
  readonly whole: Promise<void>;
  readonly #layer: Layer;
  readonly #name: string;
  readonly #indexes: readonly number[];
  readonly #context: BlobContext;
  readonly #rank: number;
  readonly #ready = Promise.withResolvers<void>();
  /** The blob in the store, or in the image's source on this machine. */
  #file: BlobFile | undefined;
  #buffer: BlobBuffer | undefined;
  #claim: Claim | undefined;
  #size: number | undefined;
  /** The bytes are in a file that is not kept. */
  #spools = false;
  /** The received bytes are wrong: no later run may resume them. */
  #worthless = false;
  #reported = 0;
  #closing: Promise<void> | undefined;

  /**
   * @param name for messages: `layer 3 of 7 (0123456789ab)`
   * @param indexes of the layers that have this blob
   */
  constructor(layer: Layer, name: string, indexes: readonly number[], context: BlobContext) {
    this.#layer = layer;
    this.#name = name;
    this.#indexes = indexes;
    this.#context = context;
    this.#rank = indexes[0]!;
    this.whole = this.#obtain();
    this.whole.catch((error: unknown) => this.#ready.reject(error));
    this.ready.catch(() => undefined);
  }

  /**
   * Resolves when `reader` may be called: the blob is in the store, or its download starts. The reader may
   * still have to wait for the whole blob, see `BlobBufferOptions.held`.
   */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** Size in bytes, once the blob is complete. */
  get size(): number | undefined {
    return this.#size;
  }

  /**
   * Returns a reader of the bytes from the start, while they arrive. It throws if the digest is wrong at the
   * end.
   */
  reader(): ByteReader {
    return this.#file?.reader() ?? this.#buffer!.reader();
  }

  /**
   * Waits for the end of a blob that cannot be unpacked, and returns its error. Undefined if its bytes are
   * right or no digest is known. Undefined also if a blob of unknown size does not end in time.
   */
  async verdict(): Promise<unknown> {
    const { digest, checksum, size } = this.#layer;
    if ((digest ?? checksum) === undefined) return undefined;
    // Such a blob may never end.
    const late = size === undefined ? [sleep(UNKNOWN_END_TIMEOUT, 'late', { ref: false })] : [];
    try {
      if ((await Promise.race([this.whole, ...late])) === 'late') return undefined;
      await this.#file?.verify(this.#context.signal);
      return undefined;
    } catch (error) {
      return error;
    }
  }

  /** Ends a download that still runs, and closes the file. Further calls wait for the first. */
  async close(): Promise<void> {
    this.#closing ??= this.#close();
    await this.#closing;
  }

  async #close(): Promise<void> {
    this.#buffer?.fail(new Error('the blob is closed'));
    await this.whole.catch(() => undefined);
    await this.#file?.close();
    // This closes the file of a claim.
    if (this.#claim) await this.#context.store.release(this.#claim, !this.#worthless);
    if (this.#spools) await this.#buffer?.close();
  }

  async #obtain(): Promise<void> {
    const { mayOpen, requests, signal, report } = this.#context;
    await mayOpen(this.#rank);
    const download = await requests.run(this.#rank, async () => {
      signal.throwIfAborted();
      return await this.#begin();
    });
    await download?.end();
    for (const index of this.#indexes) report({ type: 'layer-fetched', index });
  }

  /**
   * Finds the blob, or begins its download. Resolves when the body of the first request is received: until
   * then the request counts as a connection.
   */
  async #begin(): Promise<LayerDownload | undefined> {
    const { report } = this.#context;
    const layer = this.#layer;
    if (layer.openLocal) this.#file = await this.#local(await layer.openLocal());
    else await this.#findOrClaim();
    const cached = !layer.openLocal && this.#file !== undefined;
    const resumed = this.#claim?.kept.ranges.reduce((sum, { start, end }) => sum + end - start, 0) ?? 0;
    const start = { type: 'layer-start', cached, ...(resumed > 0 && { resumed }) } as const;
    for (const index of this.#indexes) report({ ...start, index });
    if (!layer.openLocal && !cached) return await this.#download(layer);
    this.#ready.resolve();
    return undefined;
  }

  /**
   * Finds the blob in the store, or claims a file in it for the download. The store may also keep nothing.
   */
  async #findOrClaim(): Promise<void> {
    const { store, signal, report } = this.#context;
    const { digest, size } = this.#layer;
    if (digest === undefined) return;
    const waiting = () => {
      const message = `${this.#name}: another run is downloading it; waiting for that run`;
      report({ type: 'notice', message });
    };
    this.#file = await this.#fromStore(digest);
    if (this.#file) return;
    const claim = await store.claim({ digest, maxBytes: size, signal, waiting });
    if (claim !== 'there') this.#claim = claim;
    // If the file that another run has put there is corrupt, this run keeps nothing.
    else this.#file = await this.#fromStore(digest);
  }

  /** Returns the file of the source. If layers are held, it is verified first. */
  async #local(source: LocalBlob): Promise<BlobFile> {
    const { hold, signal } = this.#context;
    const { checksum } = this.#layer;
    const file = new BlobFile(source, checksum, async (fault) => {
      return new IntegrityError(`${this.#name}: its file ${fault}`, { code: 'DIGEST_MISMATCH' });
    });
    this.#size = source.size;
    try {
      if (hold) await file.verify(signal);
      return file;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Returns the store's file for this digest, unless it is found to be corrupt. */
  async #fromStore(digest: Digest): Promise<BlobFile | undefined> {
    const { size } = this.#layer;
    const { store, hold, careful, signal } = this.#context;
    const handle = await store.openBlob(digest);
    if (!handle) return undefined;
    const found = (await handle.stat().catch(() => undefined))?.size;
    const cached = {
      size: found ?? 0,
      read: async (into: Uint8Array, position: number) =>
        (await handle.read(into, 0, into.length, position)).bytesRead,
      close: () => handle.close(),
    };
    const file = new BlobFile(cached, { digest }, async (fault) => {
      await store.remove(digest, handle);
      return new CorruptBlobError(this.#name, `cached copy ${fault}`);
    });
    try {
      if (found === undefined || (size !== undefined && found !== size)) await store.remove(digest, handle);
      else {
        if (hold === true || careful === true) await file.verify(signal);
        this.#size = found;
        return file;
      }
    } catch (error) {
      if (!(error instanceof CorruptBlobError)) throw error;
    }
    await handle.close();
    const message = `${this.#name}: cached copy is corrupt; downloading it again`;
    this.#context.report({ type: 'notice', message });
    return undefined;
  }

  /**
   * Receives the body of the first request for the blob. `end` resolves when the blob is complete and its
   * digest right.
   */
  async #download(layer: RemoteLayer): Promise<LayerDownload> {
    const { store, signal, hold = false } = this.#context;
    const claim = this.#claim;
    const kept = claim?.kept ?? { ranges: [], size: undefined };
    const spool = { open: () => store.spool(), where: store.spoolDirectory };
    this.#spools = claim === undefined;
    const buffer = new BlobBuffer({
      file: claim ? { open: async () => claim.handle, where: store.directory! } : spool,
      instead: claim && ((error) => this.#leaveStore(claim, error, spool)),
      // The bytes of an earlier run may be corrupt: they are checked before a layer is unpacked from them.
      held: hold || kept.ranges.length > 0,
    });
    this.#buffer = buffer;
    const stop = () => buffer.fail(signal.reason);
    signal.addEventListener('abort', stop);
    this.#ready.resolve();
    const download = new Download(layer, buffer, {
      ...this.#context,
      name: this.#name,
      rank: this.#rank,
      progress: (received) => this.#progress(received),
      note: async (present) => {
        if (!this.#spools) await claim?.note(present).catch((error: unknown) => buffer.leaveFile(error));
      },
    });
    const failing = async (work: () => Promise<void>): Promise<void> => {
      try {
        await work();
      } catch (error) {
        this.#worthless = error instanceof CorruptBlobError;
        buffer.fail(error);
        signal.removeEventListener('abort', stop);
        throw error;
      }
    };
    await failing(() => download.begin(kept));
    const end = () =>
      failing(async () => {
        await download.end();
        await this.#publish();
        buffer.finish();
        this.#size = buffer.received;
        signal.removeEventListener('abort', stop);
      });
    return { end };
  }

  /** Returns the file in which the blob continues when the store's disk is full or fails. */
  #leaveStore(claim: Claim, error: unknown, spool: BufferFile): BufferFile {
    this.#spools = true;
    const open = async () => {
      await this.#context.store.giveUp(claim, error);
      return await spool.open();
    };
    return { ...spool, open };
  }

  async #publish(): Promise<void> {
    if (!this.#claim || this.#spools) return;
    await this.#context.store.publish(this.#claim).catch((error: unknown) => {
      const message = `${this.#name}: cannot keep it in the cache: ${reasonOf(error)}`;
      this.#context.report({ type: 'notice', message });
    });
  }

  #progress(received: number): void {
    const now = performance.now();
    if (now - this.#reported < PROGRESS_INTERVAL) return;
    this.#reported = now;
    for (const index of this.#indexes) {
      this.#context.report({ type: 'layer-progress', index, received });
    }
  }
}

/** Number of bytes read at once. */
const READ_BYTES = 2 ** 20;

/** A whole blob in a file. Its digest is checked on every read, since the file may have changed. */
export class BlobFile {
  readonly #file: LocalBlob;
  readonly #checksum: Checksum | undefined;
  readonly #failureOf: (fault: string) => Promise<Error>;

  /** @param failureOf returns the error for a fault: `has digest …`, `cannot be read: …` */
  constructor(file: LocalBlob, checksum: Checksum | undefined, failureOf: (fault: string) => Promise<Error>) {
    this.#file = file;
    this.#checksum = checksum;
    this.#failureOf = failureOf;
  }

  /** Returns a reader of the bytes from the start. If they are corrupt, it throws the failure at the end. */
  reader(): ByteReader {
    const hash = new BlobHash(this.#checksum);
    return { read: (into) => this.#next(into, hash) };
  }

  /**
   * Reads the whole file and checks its digest.
   *
   * @throws the failure; the signal's reason
   */
  async verify(signal: AbortSignal): Promise<void> {
    const hash = new BlobHash(this.#checksum);
    const buffer = new Uint8Array(READ_BYTES);
    do signal.throwIfAborted();
    while ((await this.#next(buffer, hash)) > 0);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  /**
   * Reads the bytes that follow those in `hash`. Returns their number, 0 at the end if the digest is right.
   */
  async #next(into: Uint8Array, hash: BlobHash): Promise<number> {
    let count: number;
    try {
      count = await this.#file.read(into, hash.bytes);
    } catch (error) {
      const os = osErrorOf(error);
      throw os ? await this.#failureOf(`cannot be read: ${os.text}`) : error;
    }
    if (count > 0) {
      hash.update(into.subarray(0, count));
      return count;
    }
    const found = hash.mismatch();
    if (found === undefined) return 0;
    throw await this.#failureOf(`has digest ${found} but must have ${this.#checksum!.digest}`);
  }
}
