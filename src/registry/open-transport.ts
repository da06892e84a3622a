import { Connections } from './http/connections.ts';
import type { Manners } from './endpoint.ts';
import type { RegistryOptions } from './registry-options.ts';
import type { Slots } from './http/slots.ts';
import { tlsSettings } from './http/tls.ts';
import { Transport } from './http/transport.ts';

/** What all transports of a session have in common. */
export interface TransportSettings {
  readonly options: RegistryOptions;
  readonly manners: Manners;
  readonly slots: Slots;
}

/** A way to talk to one registry, and whether somebody gave certificates for it. */
export interface OpenTransport {
  readonly transport: Transport;
  readonly certificates: boolean;
}

/**
 * Prepares connections on behalf of `registry` (`host[:port]`) with the certificates that belong to it; `insecure` leaves theirs
 * unchecked. Throws UsageError for certificate files that make no sense.
 */
export async function openTransport(
  registry: string,
  insecure: boolean,
  { options, manners, slots }: TransportSettings,
): Promise<OpenTransport> {
  const { timeouts, report } = manners;
  const tls = await tlsSettings(registry, options, insecure);
  const connections = new Connections(options.environment, timeouts, tls);
  return { transport: new Transport(connections, slots, timeouts, report), certificates: tls.configured };
}
