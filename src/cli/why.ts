/** `flowstone why`: the answer, the facts that it follows from, and what is so just now. */
import type { Command } from 'commander'
import { cut, printable } from '../../streams/text.ts'
import { type AtOptions, type Reading, readable, withReading } from './at.ts'
import type { Output } from './output.ts'

const LINE_MAX = 600
const KIND_WIDTH = 20
const RUNS_SHOWN = 5

export function whyCommand(root: Command): void {
  readable(root.command('why <what>'))
    .description('say why a run (RUN), its asset (RUN.ASSET) or a value (PIPELINE/ASSET@PARTITION) is as it is')
    .action((what: string, options: AtOptions) =>
      withReading(options, (flow, output) => showWhy(flow, output, what, options.at === undefined)),
    )
}

async function showWhy(flow: Pick<Reading, 'why'>, output: Output, what: string, isNow: boolean): Promise<void> {
  const found = await flow.why(what)
  output.result(found, () => {
    const { verdict, chain, state, runs } = found
    return [
      line(verdict.text),
      '',
      ...chain.map(({ fact, text }) => {
        const place = `${fact.shard}/${fact.seq}`.padStart(9)
        return `${place}  ${fact.at.toISOString()}  ${fact.kind.padEnd(KIND_WIDTH)}  ${line(text)}`
      }),
      ...(state.length > 0 ? ['', isNow ? 'Just now:' : 'Then:', ...state.map(({ text }) => `  ${line(text)}`)] : []),
      ...(runs.length > 0 ? ['', ...runs.slice(0, RUNS_SHOWN).map((run) => `See also: flowstone why ${run}`)] : []),
    ]
  })
}

/** One line each, whatever an error says. */
function line(text: string): string {
  return cut(printable(text), LINE_MAX, '…')
}
