/** Routes that act on scatters, gates, limits, schedules, sensors and refused messages. */
import { z } from 'zod'
import type { Duration } from '../../../options/duration.ts'
import { HttpProblem } from '../../shared/problem.ts'
import { partFor } from '../covered.ts'
import { type Call, type Route, route } from '../route.ts'
import * as s from '../schemas.ts'
import { mustSubscribe } from '../subscriptions.ts'
import { reason } from './run-acts.ts'
import { mustSee } from './schedules.ts'

const DONE = { ok: true } as const

const signal = s.named(
  'Signal',
  z.strictObject({
    payload: z.unknown().optional().describe('What `onSignal` gets; checked by the schema of the gate.'),
  }),
)
const extend = s.named(
  'ExtendGate',
  z.strictObject({ duration: z.union([z.number(), z.string()]).describe("From now on, such as `'2h'`.") }),
)
/** Where there is no reason to give. */
const nothing = s.named('Nothing', z.strictObject({}))
const accepted = s.named('Accepted', z.object({ status: z.literal('accepted'), gate: s.text, repeated: z.boolean() }))
const extended = s.named('Extended', z.object({ deadline: s.time }))
const retried = s.named(
  'RetriedMessage',
  z.object({ run: s.text.optional().describe('Not there where it waits for other messages.') }),
)

/** An act on a scatter that brings nothing. */
function onScatter(
  act: string,
  summary: string,
  handle: (call: Pick<Call, 'flow'>, id: string, reason: string | undefined) => Promise<void>,
  body: typeof reason | typeof nothing = reason,
): Route {
  return route({
    method: 'POST',
    path: `/scatters/:scatter/${act}`,
    tag: 'scatters',
    scope: 'operate',
    summary,
    body,
    answer: s.done,
    handle: async (call) => {
      // As the path says.
      const { scatter = '' } = call.params as Readonly<Record<string, string>>
      await partFor(call, scatter)
      await handle(call, scatter, 'reason' in call.body ? call.body.reason : undefined)
      return DONE
    },
  })
}

export const SCATTER_ACTS: readonly Route[] = [
  onScatter('pause', 'Begins nothing more until it is resumed', async ({ flow }, id, why) => {
    await flow.scatter.pause(id, why)
  }),
  onScatter(
    'resume',
    'Goes on with a paused scatter',
    async ({ flow }, id) => {
      await flow.scatter.resume(id)
    },
    nothing,
  ),
  onScatter('cancel', 'Ends it early: its asset fails with `cancelled`', async ({ flow }, id, why) => {
    await flow.scatter.cancel(id, why)
  }),
  route({
    method: 'POST',
    path: '/scatters/:scatter/redrive',
    tag: 'scatters',
    scope: 'operate',
    status: 202,
    summary: 'Runs again what did not succeed of a closed scatter, and all downstream of it',
    answer: s.runStarted,
    handle: async (call) => {
      await partFor(call, call.params.scatter)
      const run = await call.flow.scatter.redrive(call.params.scatter)
      return { run: run.id, isNew: run.isNew }
    },
  }),
]

export const GATE_ACTS: readonly Route[] = [
  route({
    method: 'POST',
    path: '/gates/:gate/signal',
    tag: 'gates',
    scope: 'operate',
    summary: 'Answers a gate; an approval takes `{ "approved": true }`',
    body: signal,
    answer: accepted,
    handle: async (call) => {
      const { flow, caller, params, body, idempotencyKey } = call
      await partFor(call, params.gate)
      const key = idempotencyKey === undefined ? {} : { idempotencyKey: `http:${caller.id}:${idempotencyKey}` }
      return await flow.gates.signalById(params.gate, body.payload, { source: sourceOf(call), ...key })
    },
  }),
  route({
    method: 'POST',
    path: '/gates/:gate/cancel',
    tag: 'gates',
    scope: 'operate',
    summary: 'Ends a gate: its asset is cancelled, or its instance fails',
    body: reason,
    answer: s.done,
    handle: async (call) => {
      await partFor(call, call.params.gate)
      await call.flow.gates.cancel(call.params.gate, call.body.reason)
      return DONE
    },
  }),
  route({
    method: 'POST',
    path: '/gates/:gate/extend',
    tag: 'gates',
    scope: 'operate',
    summary: 'Gives a waiting gate a deadline from now on',
    body: extend,
    answer: extended,
    handle: async (call) => {
      await partFor(call, call.params.gate)
      // Checked where it is used.
      const duration = call.body.duration as Duration
      return { deadline: await call.flow.gates.extend(call.params.gate, duration, { by: sourceOf(call) }) }
    },
  }),
]

/** Who did it, as it stands with the gate. */
function sourceOf({ caller }: Pick<Call, 'caller'>): string {
  return `http:${caller.id}`
}

export const LIMIT_ACTS: readonly Route[] = [
  route({
    method: 'POST',
    path: '/limits/:bucket/reset',
    tag: 'limits',
    scope: 'administer',
    wide: true,
    summary: 'Forgets what was taken: all of it is free at once',
    answer: s.done,
    handle: async ({ flow, params }) => {
      await flow.limiter.reset(params.bucket)
      return DONE
    },
  }),
]

type Kind = 'schedules' | 'sensors'

/** The same for schedules and for sensors. */
function holds(kind: Kind): Route[] {
  const one = kind.slice(0, -1)
  const act = (name: 'pause' | 'resume', summary: string): Route =>
    route({
      method: 'POST',
      path: `/${kind}/:pipeline/:name/${name}`,
      tag: 'schedules',
      scope: 'operate',
      summary,
      body: name === 'pause' ? reason : nothing,
      answer: s.done,
      handle: async (call) => {
        const id = await held(call, kind)
        if (name === 'pause') await call.flow[kind].pause(id, 'reason' in call.body ? call.body.reason : undefined)
        else await call.flow[kind].resume(id)
        return DONE
      },
    })
  return [
    act('pause', `Nothing of the ${one} is due until it is resumed`),
    act('resume', `Goes on with a paused ${one}`),
  ]
}

/** Its name, if the caller may see it. */
async function held(
  { flow, caller, params }: Pick<Call, 'flow' | 'caller'> & { readonly params: unknown },
  kind: Kind,
): Promise<string> {
  // As the paths say.
  const { pipeline, name } = params as Readonly<Record<'pipeline' | 'name', string>>
  const id = `${pipeline}/${name}`
  mustSee(caller, await flow[kind].get(id))
  return id
}

export const SCHEDULE_ACTS: readonly Route[] = [
  ...holds('schedules'),
  route({
    method: 'POST',
    path: '/schedules/:pipeline/:name/trigger',
    tag: 'schedules',
    scope: 'start',
    status: 202,
    summary: 'Starts a run now, whether the schedule is paused or not',
    answer: s.runStarted,
    handle: async (call) => {
      const { caller, idempotencyKey } = call
      const id = await held(call, 'schedules')
      const key = idempotencyKey === undefined ? {} : { key: `http:${caller.id}:${idempotencyKey}` }
      const run = await call.flow.schedules.trigger(id, key)
      return { run: run.id, isNew: run.isNew }
    },
  }),
  ...holds('sensors'),
  route({
    method: 'POST',
    path: '/sensors/:pipeline/:name/trigger',
    tag: 'schedules',
    scope: 'start',
    status: 202,
    summary: 'Has it evaluated now',
    answer: s.done,
    handle: async (call) => {
      await call.flow.sensors.trigger(await held(call, 'sensors'))
      return DONE
    },
  }),
]

export const EVENT_ACTS: readonly Route[] = [
  route({
    method: 'POST',
    path: '/triggers/refused/:trigger/retry',
    tag: 'events',
    scope: 'operate',
    wide: true,
    status: 202,
    summary: 'Takes a refused trigger after all; once',
    answer: s.runStarted,
    handle: async (call) => {
      const run = await call.flow.triggers.retry(call.params.trigger)
      return { run: run.id, isNew: run.isNew }
    },
  }),
  route({
    method: 'POST',
    path: '/subscriptions/:pipeline/:subscription/refused/:seq/retry',
    tag: 'events',
    scope: 'operate',
    status: 202,
    summary: 'Has a worker take a refused message again',
    answer: retried,
    handle: async (call) => {
      const seq = Number(call.params.seq)
      if (!Number.isSafeInteger(seq) || seq < 1) throw new HttpProblem('unknown_id')
      return { run: await call.flow.events.retry(await mustSubscribe(call, call.params), seq) }
    },
  }),
]
