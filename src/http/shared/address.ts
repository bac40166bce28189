/**
 * Where a request came from. The address of the connection is certain. Anybody can write a proxy
 * header, so it counts only as far as trusted proxies wrote it. It is read from the right, where
 * the nearest proxy added its part, and never from the left, where the sender wrote.
 */
import { BlockList, isIP } from 'node:net'
import { InvalidError } from '../../../streams/errors.ts'
import { shown } from '../../../streams/shown.ts'

/** Where the address of a sender is read when proxies stand in front. */
export interface AddressOptions {
  /**
   * Proxies in front, whose header is believed: how many there are, or their addresses and networks
   * (`'10.0.0.0/8'`, `'::1'`, `'loopback'`, `'private'`). Default: none, headers are ignored.
   */
  readonly trustProxy?: number | readonly string[]
  /**
   * The header those proxies write. Only this one is read: a proxy that writes one passes on the
   * other as the sender wrote it. Default `'x-forwarded-for'`.
   */
  readonly proxyHeader?: 'x-forwarded-for' | 'forwarded'
  /**
   * The connection's address, where the default does not know it: it reads what Node,
   * `@hono/node-server` and Deno hand on.
   */
  readonly address?: (request: Request, env: unknown) => string | undefined
}

/** What stands for an address that nobody knows. All such senders share one allowance. */
export const UNKNOWN_ADDRESS = 'unknown'

const NETWORKS: Readonly<Record<string, readonly string[]>> = {
  loopback: ['127.0.0.0/8', '::1/128'],
  private: ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7', 'fe80::/10', '169.254.0.0/16'],
}
const MAX_HOPS = 32

/** Checks the options (InvalidError), and returns what finds a request's source. */
export function addressReader(options: AddressOptions): (request: Request, env: unknown) => string {
  const { trustProxy, proxyHeader = 'x-forwarded-for', address = connectionAddress } = options
  if (proxyHeader !== 'x-forwarded-for' && proxyHeader !== 'forwarded')
    throw new InvalidError(`proxyHeader must be 'x-forwarded-for' or 'forwarded', got ${shown(options.proxyHeader)}`)
  if (typeof address !== 'function') throw new InvalidError('address must be a function that finds an address')
  const trusted = trustIn(trustProxy)
  return (request, env) => {
    const near = normalAddress(address(request, env) ?? '') ?? UNKNOWN_ADDRESS
    if (!trusted) return near
    const header = request.headers.get(proxyHeader)
    const given = header === null ? [] : proxyHeader === 'forwarded' ? forwardedFor(header) : header.split(',')
    const chain = [...given.slice(-MAX_HOPS).map((entry) => normalAddress(entry)), near]
    // From the connection outwards, as long as the one that says so is trusted. What is no address
    // ends it: whoever wrote it hides.
    let at = chain.length - 1
    for (let hop = 0; at > 0 && chain[at - 1] !== undefined && trusted(chain[at] ?? '', hop); hop++) at--
    return chain[at] ?? near
  }
}

function trustIn(trustProxy: unknown): ((address: string, hop: number) => boolean) | undefined {
  if (trustProxy === undefined || trustProxy === 0) return undefined
  if (typeof trustProxy === 'number' && Number.isInteger(trustProxy) && trustProxy > 0 && trustProxy <= MAX_HOPS)
    return (_, hop) => hop < trustProxy
  if (!Array.isArray(trustProxy))
    throw new InvalidError(
      `trustProxy must be the number of proxies in front (at most ${MAX_HOPS}), or a list of their addresses and networks, got ${shown(trustProxy)}`,
    )
  const list = new BlockList()
  for (const entry of trustProxy.flatMap((name: unknown) => NETWORKS[String(name)] ?? [String(name)])) {
    const [network = '', bits, ...rest] = entry.split('/')
    const version = isIP(network)
    const prefix = bits === undefined ? (version === 6 ? 128 : 32) : Number(bits)
    if (
      version === 0 ||
      rest.length > 0 ||
      bits === '' ||
      !Number.isInteger(prefix) ||
      prefix < 0 ||
      prefix > (version === 6 ? 128 : 32)
    )
      throw new InvalidError(
        `trustProxy: ${JSON.stringify(entry)} is no address, no network such as 10.0.0.0/8, and neither 'loopback' nor 'private'`,
      )
    list.addSubnet(network, prefix, version === 6 ? 'ipv6' : 'ipv4')
  }
  return (address) => isIP(address) !== 0 && list.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')
}

/**
 * Of RFC 7239: `for=192.0.2.60;proto=http, for="[2001:db8::1]:4711"`. Each element counts, also one
 * that names nobody: it stands for a proxy.
 */
function forwardedFor(header: string): string[] {
  const elements: string[] = []
  for (const element of elementsFromTheRight(header)) {
    const pair = /(?:^|;)\s*for\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))/i.exec(element)
    elements.unshift((pair?.[1]?.replaceAll(/\\(.)/g, '$1') ?? pair?.[2] ?? '').trim())
  }
  return elements
}

/**
 * What stands between commas outside quotes, the last element first. The nearest proxy wrote the
 * last one, so that is understood by itself: a quote that a sender left open further to the left
 * hides nothing of it.
 */
function elementsFromTheRight(header: string): string[] {
  const elements: string[] = []
  let end = header.length
  let quoted = false
  for (let at = header.length - 1; at >= 0 && elements.length < MAX_HOPS; at--) {
    const char = header[at]
    if (char === '"' && !(quoted && isEscaped(header, at))) quoted = !quoted
    if (char !== ',' || quoted) continue
    elements.push(header.slice(at + 1, end))
    end = at
  }
  if (elements.length < MAX_HOPS) elements.push(header.slice(0, end))
  return elements
}

/** Whether an odd number of backslashes stands before it. */
function isEscaped(text: string, at: number): boolean {
  let count = 0
  while (text[at - 1 - count] === '\\') count++
  return count % 2 === 1
}

/**
 * Without port, brackets, zone; an IPv4 address that is written as an IPv6 one is the IPv4 one.
 * Undefined for what is no address.
 */
export function normalAddress(text: string): string | undefined {
  const bare = text.trim().replace(/^"(.*)"$/, '$1')
  const host = /^\[([^\]]+)\](?::\d+)?$/.exec(bare)?.[1] ?? /^(\d+\.\d+\.\d+\.\d+):\d+$/.exec(bare)?.[1] ?? bare
  const address = host.replace(/%.*$/, '').toLowerCase()
  const version4 = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(address)?.[1] ?? address
  return isIP(version4) === 0 ? undefined : version4
}

/** Whose allowance a request uses: one house usually has a whole /64 of IPv6 to itself. */
export function limiterName(address: string): string {
  if (isIP(address) !== 6) return address
  const [head = '', tail] = address.split('::')
  const groups = head === '' ? [] : head.split(':')
  const behind = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros = tail === undefined ? 0 : 8 - groups.length - behind.length
  const whole = [...groups, ...Array.from({ length: Math.max(0, zeros) }, () => '0'), ...behind]
  return `${whole
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ''))
    .join(':')}/64`
}

/**
 * `@hono/node-server` hands on Node's request, Deno the connection; Bun's address needs the option
 * `address`.
 */
function connectionAddress(_: Request, env: unknown): string | undefined {
  const incoming = property(env, 'incoming')
  const remote =
    property(property(incoming, 'socket'), 'remoteAddress') ?? property(property(env, 'remoteAddr'), 'hostname')
  return typeof remote === 'string' ? remote : undefined
}

function property(of: unknown, name: string): unknown {
  return typeof of === 'object' && of !== null ? Reflect.get(of, name) : undefined
}
