/** Commands about schedules and sensors. */

import type { Command } from 'commander'
import { counted } from '../../streams/amounts.ts'
import type { OccurrenceView, ScheduleView, ScheduleWhen } from '../client/schedules.ts'
import { type AtOptions, readable, withReading } from './at.ts'
import { type GlobalOptions, withFlow } from './context.ts'
import { connected } from './options.ts'
import { wholeNumber } from './parts.ts'
import { table } from './table.ts'

export function scheduleCommands(root: Command): void {
  const schedule = root.command('schedule').description('show schedules; pause, trigger or backfill them')
  readable(schedule.command('ls'))
    .description('list schedules: state, last and next occurrence')
    .option('--removed', 'also those that no pipeline has any more')
    .action((options: AtOptions & { removed?: boolean }) =>
      withReading(options, async (flow, output) => {
        const found = await flow.schedules.list({ removed: options.removed === true })
        output.result(found, () =>
          table(
            ['schedule', 'state', 'when', 'last', 'next', 'open', 'waiting', 'fired', 'skipped', 'missed'],
            found.map(scheduleRow),
            'there is no schedule',
          ),
        )
      }),
    )
  connected(schedule.command('preview <schedule>'))
    .description('list the next occurrences; starts nothing')
    .option('--count <n>', 'list N occurrences', '10')
    .action((name: string, options: GlobalOptions & { count: string }) =>
      withFlow(options, async (flow, output) => {
        const next = await flow.schedules.preview(name, wholeNumber('--count', options.count))
        output.result(next, () => next.map((at) => at.toISOString()))
      }),
    )
  connected(schedule.command('log <schedule>'))
    .description('list what became of its occurrences, newest first')
    .option('--limit <n>', 'list at most N', '50')
    .action((name: string, options: GlobalOptions & { limit: string }) =>
      withFlow(options, async (flow, output) => {
        const found = await flow.schedules.occurrences(name, { limit: wholeNumber('--limit', options.limit) })
        output.result(found, () =>
          table(['at', 'what', 'count', 'why', 'run'], found.map(occurrenceRow), 'nothing was due yet'),
        )
      }),
    )
  connected(schedule.command('pause <schedule>'))
    .description('start no runs until it is resumed')
    .option('--reason <text>', 'why; stands in the facts')
    .action((name: string, options: GlobalOptions & { reason?: string }) =>
      withFlow(options, async (flow, output) => {
        await flow.schedules.pause(name, options.reason)
        output.result({ schedule: name, paused: true }, () => [`schedule ${name} is paused`])
      }),
    )
  connected(schedule.command('resume <schedule>'))
    .description('continue it from now')
    .action((name: string, options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        await flow.schedules.resume(name)
        output.result({ schedule: name, paused: false }, () => [`schedule ${name} goes on`])
      }),
    )
  connected(schedule.command('trigger <schedule>'))
    .description('start a run now')
    .option('--key <text>', 'idempotency key: the same key starts no second run')
    .action((name: string, options: GlobalOptions & { key?: string }) =>
      withFlow(options, async (flow, output) => {
        const run = await flow.schedules.trigger(name, options.key === undefined ? {} : { key: options.key })
        output.result({ schedule: name, run: run.id }, () => [`run ${run.id}`])
      }),
    )
  connected(schedule.command('backfill <schedule>'))
    .description('start the runs of past occurrences')
    .requiredOption('--from <date>', 'the first moment, such as 2026-11-01T00:00:00Z')
    .requiredOption('--to <date>', 'up to before this moment')
    .option('--key <text>', 'idempotency key: the same key asks for nothing twice')
    .action((name: string, options: GlobalOptions & { from: string; to: string; key?: string }) =>
      withFlow(options, async (flow, output) => {
        const { from, to, key } = options
        const at = await flow.schedules.backfill(name, { from, to, ...(key === undefined ? {} : { key }) })
        output.result(at, () => [`${counted(at.length, 'occurrence')} started`, ...at.map((one) => one.toISOString())])
      }),
    )
}

export function sensorCommands(root: Command): void {
  const sensor = root.command('sensor').description('show sensors; pause or trigger them')
  readable(sensor.command('ls'))
    .description('list sensors: state, last evaluation and error')
    .action((options: AtOptions) =>
      withReading(options, async (flow, output) => {
        const found = await flow.sensors.list()
        output.result(found, () =>
          table(
            ['sensor', 'state', 'last', 'next', 'evaluations', 'failures', 'error'],
            found.map((one) => [
              one.name,
              one.state,
              one.last,
              one.next,
              one.evaluations,
              one.failures,
              one.error?.message,
            ]),
            'there is no sensor',
          ),
        )
      }),
    )
  connected(sensor.command('pause <sensor>'))
    .description('stop its evaluations until it is resumed')
    .option('--reason <text>', 'why; stands in the facts')
    .action((name: string, options: GlobalOptions & { reason?: string }) =>
      withFlow(options, async (flow, output) => {
        await flow.sensors.pause(name, options.reason)
        output.result({ sensor: name, paused: true }, () => [`sensor ${name} is paused`])
      }),
    )
  connected(sensor.command('resume <sensor>'))
    .description('continue its evaluations')
    .action((name: string, options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        await flow.sensors.resume(name)
        output.result({ sensor: name, paused: false }, () => [`sensor ${name} goes on`])
      }),
    )
  connected(sensor.command('trigger <sensor>'))
    .description('evaluate it now')
    .action((name: string, options: GlobalOptions) =>
      withFlow(options, async (flow, output) => {
        await flow.sensors.trigger(name)
        output.result({ sensor: name, triggered: true }, () => [`sensor ${name} is evaluated`])
      }),
    )
}

function scheduleRow(one: ScheduleView): unknown[] {
  const { last } = one
  const became = last && `${last.what} ${(last.last ?? last.at).toISOString()}`
  return [
    one.name,
    one.state,
    whenText(one.when),
    became,
    one.next,
    one.open.length,
    one.waiting,
    one.fired,
    one.skipped,
    one.missed,
  ]
}

function whenText(when: ScheduleWhen): string {
  return 'cron' in when ? `${when.cron} ${when.timeZone}` : `every ${when.everyMs} ms`
}

function occurrenceRow({ at, what, count, why, by, run, error }: OccurrenceView): unknown[] {
  const because = [why, by, error?.message].filter((part) => part !== undefined).join(': ')
  return [at, what, count ?? 1, because === '' ? undefined : because, run]
}
