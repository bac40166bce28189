/** Commands about signal gates. */
import type { Command } from 'commander'
import { counted } from '../../streams/amounts.ts'
import { FlowStoneError, InvalidError } from '../../streams/errors.ts'
import { whyNoRun } from '../client/no-run.ts'
import type { GateView } from '../gates/types.ts'
import { type Duration, parseDuration } from '../options/duration.ts'
import { type AtOptions, type Reading, readable, withReading } from './at.ts'
import { type GlobalOptions, withFlow } from './context.ts'
import { connected } from './options.ts'
import { wholeNumber } from './parts.ts'
import { jsonArgument } from './runs.ts'
import { fields, table } from './table.ts'

interface SignalCommand extends GlobalOptions {
  readonly payload?: string
  readonly payloadFile?: string
  readonly by?: string
  readonly key?: string
}

interface ListCommand extends AtOptions {
  readonly run?: string
  readonly limit: string
  readonly after?: string
}

export function gateCommands(root: Command): void {
  const gate = root.command('gate').description('show signal gates; answer, cancel or extend them')
  listCommand(gate)
  showCommand(gate)
  signalCommand(gate)
  decisionCommands(gate)
  cancelCommand(gate)
  extendCommand(gate)
  urlCommand(gate)
}

function listCommand(gate: Command): void {
  readable(gate.command('ls'))
    .description('list waiting gates, the soonest deadline first, or all gates of a run')
    .option('--run <run>', 'the gates of this run, ended ones too')
    .option('--limit <n>', 'list at most N', '100')
    .option('--after <gate>', 'the next page: gates behind this one')
    .action((options: ListCommand) =>
      withReading(options, async (flow, output) => {
        const limit = wholeNumber('--limit', options.limit)
        const after = options.after === undefined ? undefined : await flow.gates.get(options.after)
        if (options.after !== undefined && !after)
          throw new FlowStoneError('not_found', `there is no gate ${options.after}`)
        if (options.run !== undefined && after) throw new InvalidError('--after is for gates that wait, without --run')
        const gates =
          options.run === undefined
            ? await flow.gates.waiting({ limit, ...(after ? { after } : {}) })
            : (await gatesOf(flow, options.run)).slice(0, limit)
        output.result(gates, () =>
          table(
            ['gate', 'status', 'kind', 'opened', 'deadline', 'timeouts', 'metadata'],
            gates.map((one) => [one.id, one.status, one.kind, one.openedAt, one.deadline, one.timeouts, one.metadata]),
            options.run === undefined ? 'no gate is waiting' : 'this run has no gates',
          ),
        )
      }),
    )
}

async function gatesOf(flow: Reading, id: string): Promise<GateView[]> {
  const gates = await flow.gates.list(id)
  const run = flow.run(id)
  if (gates.length === 0 && !(await run.view())) throw await whyNoRun(run)
  return gates
}

function showCommand(gate: Command): void {
  readable(gate.command('show <gate>'))
    .description('show one gate, by its id or token')
    .action((name: string, options: AtOptions) =>
      withReading(options, async (flow, output) => {
        const view = isToken(name) ? await flow.gates.getByToken(name) : await flow.gates.get(name)
        if (!view)
          throw new FlowStoneError(
            'not_found',
            isToken(name) ? 'there is no gate of this token' : `there is no gate ${name}`,
          )
        output.result(view, () => gateLines(view))
      }),
    )
}

function signalCommand(gate: Command): void {
  connected(gate.command('signal <gate>'))
    .description('answer a gate, by its id or token; with an id, your access to the server is your authority')
    .option('--payload <json>', 'what the asset gets; default null')
    .option('--payload-file <file>', 'the same out of a file; - is standard input')
    .option('--by <name>', 'who signals; recorded as the source')
    .option('--key <text>', 'idempotency key')
    .action((name: string, options: SignalCommand) =>
      signal(name, jsonArgument('--payload', options.payload, options.payloadFile), options),
    )
}

function decisionCommands(gate: Command): void {
  for (const [verb, approved] of [
    ['approve', true],
    ['reject', false],
  ] as const) {
    connected(gate.command(`${verb} <gate>`))
      .description(`${verb} what an approval asks for, by its id or token`)
      .option('--comment <text>', 'stands with the decision')
      .option('--by <name>', 'who decides; recorded with the decision')
      .action((name: string, options: GlobalOptions & { comment?: string; by?: string }) => {
        const { comment, by } = options
        const payload = { approved, ...(comment === undefined ? {} : { comment }), ...(by === undefined ? {} : { by }) }
        return signal(name, payload, options)
      })
  }
}

function cancelCommand(gate: Command): void {
  connected(gate.command('cancel <gate>'))
    .description('end a gate without an answer; its asset is cancelled')
    .option('--reason <text>', 'why; stands in the facts')
    .action((id: string, options: GlobalOptions & { reason?: string }) =>
      withFlow(options, async (flow, output) => {
        await flow.gates.cancel(id, options.reason)
        output.result({ gate: id, cancelled: true }, () => [`gate ${id} is cancelled`])
      }),
    )
}

function extendCommand(gate: Command): void {
  connected(gate.command('extend <gate> <duration>'))
    .description('move the deadline of a gate to DURATION from now, such as 30m or 2d')
    .action((id: string, duration: string, options: GlobalOptions) => {
      const ms: Duration = parseDuration('duration', duration)
      return withFlow(options, async (flow, output) => {
        await flow.gates.extend(id, ms)
        const view = await flow.gates.get(id)
        output.result({ gate: id, deadline: view?.deadline }, () => [
          `gate ${id} waits until ${view?.deadline?.toISOString() ?? 'it is answered'}`,
        ])
      })
    })
}

function urlCommand(gate: Command): void {
  connected(gate.command('url <gate>'))
    .description('print the secret address that answers a gate; needs FLOWSTONE_GATE_SECRETS and FLOWSTONE_BASE_URL')
    .action((id: string, options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        const url = await flow.gates.callbackUrl(id)
        output.result({ gate: id, url }, () => [url])
      }),
    )
}

/**
 * With a token, as anybody who has it; with an id, by the authority of whoever can reach the
 * server.
 */
function signal(name: string, payload: unknown, options: GlobalOptions & { by?: string; key?: string }): Promise<void> {
  const { by, key } = options
  const how = { source: by ?? 'flowstone cli', ...(key === undefined ? {} : { idempotencyKey: key }) }
  return withFlow(options, async (flow, output) => {
    const accepted = isToken(name)
      ? await flow.gates.signal(name, payload, how)
      : await flow.gates.signalById(name, payload, how)
    output.result(accepted, () => [
      accepted.repeated ? `gate ${accepted.gate} had this signal already` : `gate ${accepted.gate} has its signal`,
    ])
  })
}

/** An id is `<run>.<asset>.<gate>`; a token has one part more. */
function isToken(name: string): boolean {
  return name.split('.').length > 3
}

function gateLines(view: GateView): string[] {
  const { signal, refused, ...rest } = view
  const lines = fields({
    ...rest,
    payload: signal?.payload,
    source: signal?.source,
    headers: signal?.headers,
    refused: refused && `${counted(refused.count, 'attempt')} to answer`,
  })
  if (!refused) return lines
  const rows = refused.last.map(({ at, reason, source, by }) => [at, reason, source, by])
  return [...lines, '', ...table(['refused at', 'reason', 'source', 'by'], rows, '')]
}
