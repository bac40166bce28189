/**
 * Who asks the API: the holder of an API key, or whoever reaches a server that is open to him. The
 * latter is protected from pages of other sites, which a browser of his may show. A proxy on the
 * same machine makes all the world look like this machine, so what came through one needs a key.
 */

import { InvalidError } from '../../../streams/errors.ts'
import type { AddressOptions } from '../shared/address.ts'
import { type ApiKey, type ApiKeyAction, type ApiKeyRole, ApiKeys, rolesActions } from '../shared/api-keys.ts'
import { HttpProblem } from '../shared/problem.ts'
import type { Caller } from './route.ts'

export interface AccessOptions {
  readonly apiKeys: readonly ApiKey[] | undefined
  /** What may be done without a key. */
  readonly open: ApiKeyRole | undefined
  /** Where this is reached from outside. */
  readonly baseUrl: string | undefined
  readonly trustProxy: AddressOptions['trustProxy']
}

/** Who has no key is this one. */
const NOBODY = 'local'
/** Of those that proxies add. */
const PROXY_HEADERS = ['forwarded', 'via', 'x-real-ip', 'x-client-ip', 'true-client-ip', 'cf-connecting-ip']
const PROXY_PREFIX = 'x-forwarded-'
const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?$/i

export type Access = (request: Request) => Caller

/**
 * Throws the problems `unauthorized` and `cross_site`; InvalidError for keys that cannot be, and
 * for a server that is open to more than reading though others than this machine reach it.
 */
export function accessOf({ apiKeys, open, baseUrl, trustProxy }: AccessOptions): Access {
  const keys = apiKeys === undefined ? undefined : new ApiKeys(apiKeys)
  const actions = open === undefined ? undefined : rolesActions('api.open', open)
  const outside = outsideOf({ baseUrl, trustProxy })
  if (open !== undefined && open !== 'viewer' && outside !== undefined)
    throw new InvalidError(
      `api: ${outside}, so others than this machine reach it, who must not be ${open} without a key; give apiKeys (flowstone http key --role admin makes one), or open: 'viewer'`,
    )
  return (request) => {
    const authorization = request.headers.get('authorization')
    if (actions === undefined || authorization !== null) {
      const key = keys?.find(authorization, Date.now())
      if (!key) throw new HttpProblem('unauthorized')
      return key
    }
    if (outside === undefined) checkDirect(request.headers)
    checkSite(request, baseUrl)
    return callerWith(actions)
  }
}

/** What says that others than this machine reach a server on a loopback address. */
export function outsideOf({ baseUrl, trustProxy }: Pick<AccessOptions, 'baseUrl' | 'trustProxy'>): string | undefined {
  const isProxied = Array.isArray(trustProxy) ? trustProxy.length > 0 : Boolean(trustProxy)
  if (isProxied) return 'trustProxy names proxies in front'
  return baseUrl === undefined || LOOPBACK.test(new URL(baseUrl).host) ? undefined : `its baseUrl is ${baseUrl}`
}

function callerWith(actions: readonly ApiKeyAction[]): Caller {
  return { id: NOBODY, may: (action) => actions.includes(action), covers: () => true, seesAll: true }
}

/** Nobody said that there is a proxy, and there is one: then all the world may ask here. */
function checkDirect(headers: Headers): void {
  const passed = [...headers.keys()].find((name) => PROXY_HEADERS.includes(name) || name.startsWith(PROXY_PREFIX))
  if (passed !== undefined)
    throw new HttpProblem(
      'unauthorized',
      `Without an API key only this machine is answered, and ${passed} says that a proxy passed this on. Set apiKeys.`,
    )
}

/**
 * A browser may be made to ask by a page of another site. It says so, or its Origin does. A name of
 * that site may also lead here (DNS rebinding): then the Host header is not ours.
 */
function checkSite(request: Request, baseUrl: string | undefined): void {
  const { host } = new URL(request.url)
  const ours = baseUrl === undefined ? undefined : new URL(baseUrl).host
  if (host !== ours && !LOOPBACK.test(host)) throw new HttpProblem('cross_site')
  const site = request.headers.get('sec-fetch-site')
  if (site !== null && site !== 'same-origin' && site !== 'none') throw new HttpProblem('cross_site')
  const origin = request.headers.get('origin')
  if (origin === null) return
  const from = URL.canParse(origin) ? new URL(origin).host : ''
  if (from !== host && from !== ours) throw new HttpProblem('cross_site')
}

/** Whether only this machine reaches a server that listens there. */
export function isLoopback(host: string): boolean {
  return LOOPBACK.test(host.includes(':') && !host.startsWith('[') ? `[${host}]` : host)
}
