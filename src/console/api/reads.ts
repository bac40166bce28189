/** What the pages read, by name. One line for each address. */
import { pathOf, type Query, type Read } from './client.ts'
import type {
  Asset,
  Gate,
  Gates,
  Home,
  Instance,
  Log,
  Me,
  Rail,
  RunHistory,
  RunInput,
  RunPage,
  Runs,
  Scatter,
  ScatterErrors,
  ScatterMap,
  ScatterTiles,
  Why,
  Workers,
} from './types.ts'

export const me = (): Read<Me> => ({ path: '/me', now: true })
export const home = (): Read<Home> => ({ path: '/home' })
export const runs = (query: Query): Read<Runs> => ({ path: '/runs', query })
export const run = (id: string): Read<RunPage> => ({ path: pathOf`/runs/${id}` })
export const assets = (): Read<{ assets: Asset[] }> => ({ path: '/assets' })
export const runInput = (id: string): Read<RunInput> => ({ path: pathOf`/runs/${id}/input` })
export const runHistory = (id: string, query: Query): Read<RunHistory> => ({ path: pathOf`/runs/${id}/history`, query })
export const why = (query: Query): Read<Why> => ({ path: '/why', query, now: true })
export const gates = (query: Query = {}): Read<Gates> => ({ path: '/gates', query })
export const gate = (id: string): Read<Gate> => ({ path: pathOf`/gates/${id}` })
export const rail = (query: Query): Read<Rail> => ({ path: '/log/rail', query })
export const log = (query: Query): Read<Log> => ({ path: '/log', query })
export const workers = (): Read<Workers> => ({ path: '/workers', now: true })
export const scatter = (id: string): Read<Scatter> => ({ path: pathOf`/scatters/${id}` })
export const scatterMap = (id: string, query: Query = {}): Read<ScatterMap> => ({
  path: pathOf`/scatters/${id}/map`,
  query,
})
export const scatterTiles = (id: string): Read<ScatterTiles> => ({ path: pathOf`/scatters/${id}/tiles` })
export const scatterErrors = (id: string, query: Query = {}): Read<ScatterErrors> => ({
  path: pathOf`/scatters/${id}/errors`,
  query,
})
export const instance = (id: string, index: number): Read<Instance> => ({
  path: pathOf`/scatters/${id}/instances/${index}`,
})
