/**
 * Addresses of pages: `#/runs/0-01KB?at=2026-11-28T14:00:20.000Z`. They hold ids and the moment, so
 * a link shows what its sender saw. The part behind # is never sent to a server.
 */

export interface Address {
  /** `['runs', '0-01KB', 'pages']`; empty for the home page. */
  readonly path: readonly string[]
  readonly query: Readonly<Record<string, string>>
  /** The moment that is shown; undefined for now. */
  readonly at: Date | undefined
}

export function parseAddress(hash: string): Address {
  const [path = '', search = ''] = hash.replace(/^#\/?/, '').split('?')
  const query = Object.fromEntries(new URLSearchParams(search))
  const { at: then, ...rest } = query
  const at = then === undefined ? undefined : new Date(then)
  return {
    path: path.split('/').filter(Boolean).map(decoded),
    query: rest,
    at: at && Number.isFinite(at.getTime()) ? at : undefined,
  }
}

export function formatAddress({ path, query, at }: Address): string {
  const search = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) if (value !== '') search.set(name, value)
  if (at) search.set('at', at.toISOString())
  // A time is readable in an address as it is.
  const text = search.toString().replaceAll('%3A', ':')
  return `#/${path.map(encodeURIComponent).join('/')}${text === '' ? '' : `?${text}`}`
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}
