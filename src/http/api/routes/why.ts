/** The route that says why something is as it is. */
import { z } from 'zod'
import type { Why, WhyLink } from '../../../../projections/why/types.ts'
import { HttpProblem } from '../../shared/problem.ts'
import { runFor } from '../covered.ts'
import { checkIds } from '../parse.ts'
import { type Route, route } from '../route.ts'
import * as s from '../schemas.ts'

const about = { run: s.text, asset: s.text.optional(), gate: s.text.optional() } as const
const link = s.named(
  'WhyLink',
  z.object({
    message: s.text,
    about: z.object(about),
    fact: z
      .object({ shard: s.count, seq: s.count, kind: s.text, at: s.time, ids: z.record(s.text, s.text) })
      .describe('The fact that proves it.'),
  }),
)
export const why = s.named(
  'Why',
  z.object({
    of: z.object({ ...about, pipeline: s.text, target: s.text, partition: s.text.optional() }),
    status: s.text,
    verdict: link,
    chain: z.array(link).describe('From cause to effect.'),
    state: z.array(z.object({ message: s.text, about: z.object(about) })).describe('What is so just now.'),
    runs: z.array(s.text).describe('Other runs that the chain names.'),
  }),
)

export const WHY: readonly Route[] = [
  route({
    method: 'GET',
    path: '/why',
    tag: 'overview',
    scope: 'read',
    summary: 'Why a run, an asset of it, or the newest value of an asset is as it is',
    query: {
      run: s.name.optional(),
      asset: s.name.optional().describe('Of the run; without one: `orders/invoice`.'),
      partition: z.string().max(512).optional().describe('Of the value.'),
    },
    answer: why,
    handle: async (call) => {
      const { flow, caller, query } = call
      const { run, asset, partition } = query
      if (run !== undefined) {
        checkIds({ run })
        await runFor(call, run)
        return shown(await flow.why(asset === undefined ? { run } : { run, asset }))
      }
      if (asset === undefined) throw new HttpProblem('invalid_query', 'Name a run, an asset, or both.', {}, 'run')
      const [pipeline = '', name = ''] = asset.split('/')
      if (!caller.covers(pipeline, name)) throw new HttpProblem('unknown_asset')
      return shown(await flow.why(partition === undefined ? { asset } : { asset, partition }))
    },
  }),
]

/** Each time of the API is named `at`, and each sentence for people `message`. */
function shown({ verdict, chain, state, ...rest }: Why) {
  const linkShown = ({ text, fact, about }: WhyLink) => ({ message: text, about, fact })
  return {
    ...rest,
    verdict: linkShown(verdict),
    chain: chain.map(linkShown),
    state: state.map(({ text, about }) => ({ message: text, about })),
  }
}
