/**
 * Until when the certificate of the server is good. The client library does not say it, so it is
 * looked at by a connection of its own, which ends before anybody signs in.
 */
import { once } from 'node:events'
import { connect, isIP, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { NatsConnection } from '@nats-io/nats-core'

/** A server with `handshake_first` says nothing before. */
const INFO_MS = 500
const ANSWER_MS = 3000

/** Undefined: the server has no TLS. */
export async function certificateEnds(nc: NatsConnection): Promise<Date | undefined> {
  const { info } = nc
  if (!info?.tls_required && !info?.tls_available) return undefined
  const { hostname, port } = new URL(`tls://${nc.getServer().replace(/^\w+:\/\//, '')}`)
  const host = hostname.replace(/^\[|\]$/g, '')
  const socket = connect({ host, port: Number(port) })
  try {
    return await endOf(socket, host)
  } finally {
    socket.destroy()
  }
}

async function endOf(socket: Socket, host: string): Promise<Date> {
  const late = AbortSignal.timeout(ANSWER_MS)
  await once(socket, 'connect', { signal: late })
  await once(socket, 'data', { signal: AbortSignal.timeout(INFO_MS) }).catch(() => undefined)
  // Only its dates are read: who is connected has checked it.
  const tls = connectTls({ socket, rejectUnauthorized: false, ...(isIP(host) ? {} : { servername: host }) })
  // What comes of the end of it concerns nobody.
  tls.on('error', () => undefined)
  await once(tls, 'secureConnect', { signal: late })
  const { valid_to: ends } = tls.getPeerCertificate()
  return new Date(ends)
}
