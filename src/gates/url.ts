import { InvalidError } from '../../streams/errors.ts'
import { shown } from '../../streams/shown.ts'

const PATH = '/hooks/flowstone/signal/'

/** Where a token is taken. Throws InvalidError where no base address is known. */
export function callbackUrl(baseUrl: string | undefined, token: string): string {
  if (baseUrl === undefined)
    throw new InvalidError(
      'callbackUrl: where FlowStone is reached from outside is not known; set connect({ gates: { baseUrl } }) or FLOWSTONE_BASE_URL',
    )
  return `${baseUrl}${PATH}${token}`
}

/** Checks a base address, and drops slashes at its end. */
export function parseBaseUrl(text: string): string {
  const url = typeof text === 'string' && URL.canParse(text) ? new URL(text) : undefined
  if (!url || !/^https?:$/.test(url.protocol) || url.search !== '' || url.hash !== '')
    throw new InvalidError(`gates.baseUrl must be an address such as https://flows.example.com, got ${shown(text)}`)
  return url.href.replace(/\/+$/, '')
}
