import type { Flow, GateView } from '../../src/index.ts'
import { parseRunId, runIdForKey } from '../../streams/ids.ts'
import { until } from '../kit/until.ts'

export const SECRETS = [{ id: 'k1', secret: 'a secret of thirty-two bytes or more' }]
export const GATES = { secrets: SECRETS, baseUrl: 'http://127.0.0.1:1' }

/** The gates of a run, once there are `count` of them and `condition` holds for all. */
export async function gatesOf(
  flow: Flow,
  run: string,
  count = 1,
  condition: (gate: GateView) => boolean = () => true,
): Promise<GateView[]> {
  let found: GateView[] = []
  await until(`run ${run} has ${count} gate(s)`, async () => {
    found = (await flow.gates.list(run)).filter(condition)
    return found.length >= count
  })
  return found
}

/** The one gate of a run. */
export async function gateOf(flow: Flow, run: string): Promise<GateView> {
  const [gate] = await gatesOf(flow, run)
  if (!gate) throw new Error('no gate')
  return gate
}

/** Waits until the state bucket has it that an asset waits at a gate. */
export async function untilSuspended(flow: Flow, run: string, asset: string): Promise<void> {
  await until(
    `${asset} is suspended`,
    async () => (await flow.run(run).status())?.assets[asset]?.status === 'suspended',
  )
}

/** A key whose run lives on partition `shard` of the log. */
export function keyOn(shard: number, shards: number, name: string): string {
  for (let n = 0; ; n++) {
    const key = `${name} ${n}`
    if (parseRunId(runIdForKey(key, shards)).shard === shard) return key
  }
}
