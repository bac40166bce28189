/** Assets that wait at gates, for the kill tests: loaded where KILL_GATES is set. */
import { channel } from 'node:diagnostics_channel'
import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { type AssetContext, asset, pipeline, type Suspension } from '../../../src/index.ts'
import { note, quick, total } from './pipelines.ts'

export const GATED_INSTANCES = 200

// The channel reports a gate once it is on the log, and before `openGate` returns.
if (process.env.KILL_IN_OPEN_GATE)
  channel('flowstone:gate.create').subscribe(() => process.kill(process.pid, 'SIGKILL'))

/** Says what it opened before it goes on to wait, so that a test can kill it in between. */
export const gated = asset('gated', {
  retry: quick,
  execute: async (ctx) => {
    const gate = await ctx.openGate({ timeout: '1h', metadata: { opened: true } })
    note(`opened ${gate.isNew} ${gate.token}`)
    await sleep(Number(process.env.KILL_GATE_MS ?? 0))
    return gate.wait()
  },
  onSignal: async (ctx, payload: number) => {
    note(`signalled ${ctx.attempt} ${payload}`)
    await sleep(Number(process.env.KILL_SIGNAL_MS ?? 0))
    return payload
  },
})

/** Waits for nothing but its end. */
export const brief = asset('brief', {
  execute: (ctx) => ctx.signalGate({ timeout: Number(ctx.partition) }),
  onTimeout: () => 'in time',
})

export const gatedMany = asset('gated_many', {
  retry: quick,
  scatter: () => Array.from({ length: GATED_INSTANCES }, (_, i) => i),
  execute: async (ctx) => {
    const gate = await ctx.openGate({ timeout: '1h' })
    note(`instance ${ctx.index} ${gate.isNew} ${gate.id}`)
    return gate.wait()
  },
  onSignal: async (_, payload: number) => {
    await sleep(2)
    return payload
  },
  gather: (results) => total(results),
})

/**
 * Opens two gates and waits at the last one. Where KILL_AT_LAST_GATE is set, it dies in between:
 * nothing of its outcome is on the log, and the outside job has its token.
 */
async function waitAtLast(ctx: Pick<AssetContext, 'openGate'>): Promise<Suspension> {
  const spare = await ctx.openGate({ metadata: 'spare' })
  const gate = await ctx.openGate({ metadata: 'last' })
  note(`opened ${spare.isNew} ${gate.isNew} ${gate.token}`)
  if (process.env.KILL_AT_LAST_GATE) process.kill(process.pid, 'SIGKILL')
  return gate.wait()
}

/** Its partition names the function that opens its last gate. */
export const lastGate = asset('last_gate', {
  retry: quick,
  execute: (ctx) => {
    if (ctx.partition === 'execute') return waitAtLast(ctx)
    return ctx.signalGate({ timeout: ctx.partition === 'onTimeout' ? '100ms' : '1h', metadata: 'first' })
  },
  onSignal: (ctx, payload: number) => {
    note(`signalled ${ctx.gate.metadata} ${payload}`)
    return ctx.gate.metadata === 'first' ? waitAtLast(ctx) : payload
  },
  onTimeout: (ctx) => waitAtLast(ctx),
})

export const ANSWERED = 240

/** Some are so large that they are stored apart, before the signal is. */
export const answerBy = (by: string, gate: string): { by: string; text: string } => ({
  by,
  text: 'x'.repeat(/[048]a\d+n\d+$/.test(gate) ? 200_000 : 10),
})

/** Reports of each instance who answered, and how much came. */
export const answered = asset('answered', {
  scatter: () => Array.from({ length: ANSWERED }, (_, i) => i),
  execute: (ctx) => ctx.signalGate(),
  onSignal: (_, { by, text }: { by: string; text: string }) => `${by} ${text.length}`,
})

/** The life of a gate, as far as processes have a part in it. */
export const STEPS = ['opened', 'waiting', 'signalled', 'going on', 'timing out'] as const

/** While its file is there: a test wants code to be in the middle of it. */
async function held(): Promise<void> {
  while (existsSync(process.env.KILL_HOLD ?? '')) await sleep(10)
}

async function open(ctx: Pick<AssetContext, 'openGate'>, step: string | undefined): Promise<Suspension> {
  const retry = { timeoutAction: 'retry', maxTimeoutRetries: 1, retryDelays: ['200ms'] } as const
  const gate = await ctx.openGate({ metadata: step, timeout: '1h', ...(step === 'timing out' ? retry : {}) })
  note(`opened ${gate.isNew}`)
  if (step === 'opened') await held()
  return gate.wait()
}

async function goOn(step: string | undefined, payload: string): Promise<string> {
  note(`goes on with ${payload}`)
  if (step === 'going on') await held()
  return payload
}

/** Its partition says at which step a test wants it to be. */
export const stepped = asset('stepped', {
  retry: quick,
  execute: (ctx) => open(ctx, ctx.partition),
  onSignal: (ctx, payload: string) => goOn(ctx.partition, payload),
  onTimeout: () => 'nobody answered',
})

/** The same as instances. */
export const steppedMany = asset('stepped_many', {
  retry: quick,
  scatter: () => [...STEPS],
  execute: (ctx) => open(ctx, ctx.scatterKey),
  onSignal: (ctx, payload: string) => goOn(ctx.scatterKey, payload),
  onTimeout: () => 'nobody answered',
})

/** Times out twice, and then has an hour. */
export const clocked = asset('clocked', {
  retry: quick,
  execute: (ctx) =>
    ctx.signalGate({ timeout: '500ms', timeoutAction: 'retry', maxTimeoutRetries: 2, retryDelays: ['500ms', '1h'] }),
  onSignal: (ctx) => ctx.gate.answeredAt.getTime(),
  onTimeout: (ctx) => ctx.timeouts,
})

export const gatedKills = pipeline('gated_kills', [
  gated,
  brief,
  gatedMany,
  lastGate,
  answered,
  stepped,
  steppedMany,
  clocked,
])
