import type { LimitFunction } from 'p-limit';
import { tlsSettings } from './config/certificates.ts';
import { Connections } from './http/connections.ts';
import { Transport } from './http/transport.ts';
import type { RegistryOptions, RequestPolicy } from './registry-options.ts';

/** What all transports of a session have in common. */
export interface TransportSettings {
  readonly options: RegistryOptions;
  readonly policy: RequestPolicy;
  readonly slots: LimitFunction;
}

/** A way to talk to one registry. */
export interface OpenTransport {
  readonly transport: Transport;
  /** Somebody gave certificates for this registry. */
  readonly certificates: boolean;
}

/**
 * Prepares connections on behalf of `registry` (`host[:port]`) with the certificates that belong to it.
 *
 * @param insecure leaves the server's certificates unchecked
 * @throws UsageError for certificate files that make no sense
 */
export async function openTransport(
  registry: string,
  insecure: boolean,
  { options, policy, slots }: TransportSettings,
): Promise<OpenTransport> {
  const tls = await tlsSettings(registry, options, insecure);
  const connections = new Connections(options.environment, policy.timeouts, tls);
  return { transport: new Transport(connections, slots, policy), certificates: tls.configured };
}
