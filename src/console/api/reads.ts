/** What the pages read, by name. One line for each address. */
import { pathOf, type Query, type Read } from './client.ts'
import type * as t from './types.ts'

export const me = (): Read<t.Me> => ({ path: '/me', now: true })
export const home = (): Read<t.Home> => ({ path: '/home' })
export const runs = (query: Query): Read<t.Runs> => ({ path: '/runs', query })
export const run = (id: string): Read<t.RunPage> => ({ path: pathOf`/runs/${id}` })
export const assets = (): Read<t.Assets> => ({ path: '/assets' })
export const runInput = (id: string): Read<t.RunInput> => ({ path: pathOf`/runs/${id}/input` })
export const runHistory = (id: string, query: Query): Read<t.RunHistory> => ({
  path: pathOf`/runs/${id}/history`,
  query,
})
export const runLogs = (id: string, query: Query): Read<t.RunLogs> => ({
  path: pathOf`/runs/${id}/logs`,
  query,
  now: true,
})
export const why = (query: Query): Read<t.Why> => ({ path: '/why', query })
export const gates = (query: Query = {}): Read<t.Gates> => ({ path: '/gates', query })
export const gate = (id: string): Read<t.Gate> => ({ path: pathOf`/gates/${id}` })
export const rail = (query: Query): Read<t.Rail> => ({ path: '/log/rail', query })
export const log = (query: Query): Read<t.Log> => ({ path: '/log', query })
export const audit = (query: Query): Read<t.Audit> => ({ path: '/audit', query })
export const workers = (): Read<t.Workers> => ({ path: '/workers', now: true })
export const scatter = (id: string): Read<t.Scatter> => ({ path: pathOf`/scatters/${id}` })
export const scatterMap = (id: string, query: Query = {}): Read<t.ScatterMap> => ({
  path: pathOf`/scatters/${id}/map`,
  query,
})
export const scatterTiles = (id: string): Read<t.ScatterTiles> => ({ path: pathOf`/scatters/${id}/tiles` })
export const scatterErrors = (id: string, query: Query = {}): Read<t.ScatterErrors> => ({
  path: pathOf`/scatters/${id}/errors`,
  query,
})
export const instance = (id: string, index: number): Read<t.Instance> => ({
  path: pathOf`/scatters/${id}/instances/${index}`,
})
export const pipelines = (): Read<t.Pipelines> => ({ path: '/pipelines' })
export const asset = (pipeline: string, name: string): Read<t.AssetPage> => ({
  path: pathOf`/assets/${pipeline}/${name}`,
})
export const partitions = (pipeline: string, name: string, query: Query): Read<t.Partitions> => ({
  path: pathOf`/assets/${pipeline}/${name}/partitions`,
  query,
})
export const value = (pipeline: string, name: string, query: Query): Read<t.Value> => ({
  path: pathOf`/assets/${pipeline}/${name}/value`,
  query,
})
export const limits = (): Read<t.Limits> => ({ path: '/limits', query: { limit: 1000 }, now: true })
export const schedules = (): Read<t.Schedules> => ({ path: '/schedules' })
export const occurrences = (pipeline: string, name: string, query: Query): Read<t.Occurrences> => ({
  path: pathOf`/schedules/${pipeline}/${name}/occurrences`,
  query,
})
export const sensors = (): Read<t.Sensors> => ({ path: '/sensors' })
export const subscriptions = (): Read<t.Subscriptions> => ({ path: '/subscriptions', now: true })
export const refusedMessages = (pipeline: string, name: string, query: Query): Read<t.RefusedMessages> => ({
  path: pathOf`/subscriptions/${pipeline}/${name}/refused`,
  query,
  now: true,
})
export const refusedTriggers = (query: Query): Read<t.RefusedTriggers> => ({
  path: '/triggers/refused',
  query,
  now: true,
})
