/** Where we are: the address, and the moment that is shown. */
import { computed, signal } from '@preact/signals'
import { type Address, formatAddress, parseAddress } from './address.ts'

export const address = signal<Address>(parseAddress(location.hash))
/** Undefined: now. */
export const at = computed(() => address.value.at)
export const isPast = computed(() => address.value.at !== undefined)

addEventListener('hashchange', () => {
  address.value = parseAddress(location.hash)
})

/** The link to a page. It keeps the moment that is shown. */
export function href(path: readonly string[], query: Readonly<Record<string, string>> = {}): string {
  return formatAddress({ path, query, at: at.value })
}

export function go(path: readonly string[], query: Readonly<Record<string, string>> = {}): void {
  location.hash = href(path, query)
}

/** Changes filters of the page in its place: the way back leads to the page before. */
export function setQuery(query: Readonly<Record<string, string>>): void {
  put({ ...address.value, query: { ...address.value.query, ...query } })
}

/** The same, but the way back leads to what is shown now. */
export function pushQuery(query: Readonly<Record<string, string>>): void {
  const next = { ...address.value, query: { ...address.value.query, ...query } }
  history.pushState(undefined, '', formatAddress(next))
  address.value = parseAddress(location.hash)
}

/** Shows another moment. Undefined: now. */
export function setAt(then: Date | undefined): void {
  put({ ...address.value, at: then })
}

function put(next: Address): void {
  history.replaceState(undefined, '', formatAddress(next))
  address.value = parseAddress(location.hash)
}
