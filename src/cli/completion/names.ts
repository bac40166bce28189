/** Names that are on the server just now, for a shell that completes them. */
import type { Flow } from '../../client/flow.ts'
import type { NameKind } from './tree.ts'

/** More than anybody reads. */
const MAX = 100

const NAMES: Readonly<Record<NameKind, (flow: Flow) => Promise<readonly string[]>>> = {
  run: async (flow) => (await flow.runs({ limit: MAX })).map(({ id }) => id),
  asset: async (flow) =>
    (await flow.inspect.pipelines()).flatMap(({ name, assets }) => assets.map((asset) => `${name}/${asset.name}`)),
  pipeline: async (flow) => (await flow.inspect.pipelines()).map(({ name }) => name),
  scatter: async (flow) =>
    (await flow.runs({ limit: MAX, open: true })).flatMap(({ id, assets }) =>
      Object.entries(assets).flatMap(([name, { status }]) => (status === 'scattering' ? [`${id}.${name}`] : [])),
    ),
  gate: async (flow) => (await flow.gates.waiting({ limit: MAX })).map(({ id }) => id),
  schedule: async (flow) => (await flow.schedules.list()).map(({ name }) => name),
  sensor: async (flow) => (await flow.sensors.list()).map(({ name }) => name),
  subscription: async (flow) => (await flow.events.list()).map(({ name }) => name),
}

/**
 * What names of FlowStone are made of. Shells expand what they complete, so no other name is
 * offered, whoever has written it to the server.
 */
const PLAIN = /^\w[\w./-]*$/

export async function namesOf(flow: Flow, kind: NameKind): Promise<readonly string[]> {
  return (await NAMES[kind](flow)).filter((name) => PLAIN.test(name))
}
