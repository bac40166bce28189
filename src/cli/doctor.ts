/** `flowstone doctor`: what is wrong, and what to do. */

import type { Command } from 'commander'
import type { Finding } from '../../projections/doctor/finding.ts'
import { counted } from '../../streams/amounts.ts'
import type { DoctorOptions } from '../client/doctor/doctor.ts'
import { painted } from './colour.ts'
import { type GlobalOptions, withFlow } from './context.ts'
import { httpConfig } from './http.ts'
import { connected } from './options.ts'
import { EXIT } from './output.ts'

interface DoctorCommand extends GlobalOptions {
  readonly monitor?: string
  readonly config?: string
  readonly strict?: boolean
  readonly all?: boolean
}

export function doctorCommand(root: Command): void {
  connected(root.command('doctor'))
    .description('find trouble with server, streams, engines and work, and say what to do; changes nothing')
    .option('--monitor <url>', "the server's monitoring port, such as http://127.0.0.1:8222")
    .option('--config <file>', 'the configuration of http, whose API keys are checked')
    .option('--all', 'list what is fine, too')
    .option('--strict', 'exit code 1 also for warnings, and for what cannot be seen')
    .action(async (options: DoctorCommand) => {
      const { monitor } = options
      const { apiKeys } = await httpConfig(options.config)
      const wanted: DoctorOptions = {
        ...(monitor === undefined ? {} : { monitor }),
        ...(apiKeys === undefined ? {} : { apiKeys }),
      }
      await withFlow(options, async (flow, output) => {
        const findings = await flow.doctor(wanted)
        output.result(findings, () => lines(findings, options.all === true))
        const isBad = ({ level }: Finding): boolean => (options.strict ? level !== 'ok' : level === 'error')
        if (findings.some(isBad)) process.exitCode = EXIT.failed
      })
    })
}

function lines(findings: readonly Finding[], all: boolean): string[] {
  const count = (level: Finding['level']): number => findings.filter((one) => one.level === level).length
  return [
    ...findings.flatMap(({ level, check, about, says, advice }) => [
      ...(level === 'ok' && !all
        ? []
        : [`${painted(level.padEnd(6))}  ${check}${about === undefined ? '' : ` (${about})`}: ${says}`]),
      ...(advice === undefined ? [] : [`        → ${advice}`]),
    ]),
    `${counted(count('error'), 'error')}, ${counted(count('warn'), 'warning')}, ${count('unseen')} not seen, ${count('ok')} fine`,
  ]
}
