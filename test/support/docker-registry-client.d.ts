/** Types for the part of docker-registry-client 3.4 that tests use; it has none. */
declare module 'docker-registry-client' {
  import type { Readable } from 'node:stream';

  type Callback<T> = (error: Error | null, result: T) => void;

  /** A client of registry version 1. */
  export interface ClientV1 {
    ping(callback: Callback<unknown>): void;
    listRepoImgs(callback: Callback<readonly { readonly id: string }[]>): void;
    listRepoTags(callback: Callback<Readonly<Record<string, string>>>): void;
    getImgId(options: { readonly tag: string }, callback: Callback<string>): void;
    getImgAncestry(options: { readonly imgId: string }, callback: Callback<readonly string[]>): void;
    getImgJson(options: { readonly imgId: string }, callback: Callback<{ readonly id: string }>): void;
    getImgLayerStream(options: { readonly imgId: string }, callback: Callback<Readable>): void;
    close(): void;
  }

  const library: { createClientV1(options: { readonly name: string }): ClientV1 };
  export default library;
}
