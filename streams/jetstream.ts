/**
 * JetStream of a connection, in the domain that the connection was opened for. Nothing else in this
 * project asks the client library for it, or builds a subject of its API. Where a leaf node joins
 * two domains, `$JS.API` and `$KV` are those of the connected server. `$JS.<domain>.API` reaches
 * the other domain.
 */
import * as library from '@nats-io/jetstream'
import type { NatsConnection } from '@nats-io/nats-core'
import { InvalidError } from './errors.ts'

const DOMAIN = /^[A-Za-z0-9_-]{1,64}$/
const domains = new WeakMap<NatsConnection, string>()

/**
 * From here on, all that is asked over this connection goes to this domain. Empty or undefined:
 * that of the server.
 */
export function useDomain(nc: NatsConnection, domain: string | undefined): void {
  if (domain) domains.set(nc, domain)
}

/** Throws InvalidError. */
export function checkDomain(domain: string | undefined): void {
  if (domain && !DOMAIN.test(domain))
    throw new InvalidError(
      `domain must be the name of a JetStream domain (letters, digits, - and _; at most 64), got ${JSON.stringify(domain)}`,
    )
}

/** The domain that was asked for. */
export function domainOf(nc: NatsConnection): string | undefined {
  return domains.get(nc)
}

export function jetstream(nc: NatsConnection, options: library.JetStreamOptions = {}): library.JetStreamClient {
  return library.jetstream(nc, inDomain(nc, options))
}

/**
 * Asks the server nothing by itself, unless `checkAPI`: that question is for the leader of all
 * JetStream in a cluster, and has no answer while it is away. Most others are for a stream's own
 * leader.
 */
export async function jetstreamManager(
  nc: NatsConnection,
  options: library.JetStreamManagerOptions = {},
): Promise<library.JetStreamManager> {
  return await library.jetstreamManager(nc, inDomain(nc, { checkAPI: false, ...options }))
}

function inDomain<T extends object>(nc: NatsConnection, options: T): T & { domain?: string } {
  const domain = domains.get(nc)
  return domain === undefined ? options : { ...options, domain }
}

/** A subject of JetStream's API: `apiSubject(nc, 'STREAM.INFO.x')`. */
export function apiSubject(nc: NatsConnection, rest: string): string {
  const domain = domains.get(nc)
  return domain === undefined ? `$JS.API.${rest}` : `$JS.${domain}.API.${rest}`
}

/**
 * Where to publish what is to be stored under a subject: those of buckets do not cross between
 * domains by themselves.
 */
export function storeSubject(nc: NatsConnection, subject: string): string {
  const domain = domains.get(nc)
  return domain === undefined || !subject.startsWith('$KV.') ? subject : `$JS.${domain}.API.${subject}`
}
