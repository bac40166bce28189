/** The route of who did what. */
import { z } from 'zod'
import { AUDITED, parsePlace, placeText } from '../../../../projections/audit.ts'
import { badCursor } from '../parse.ts'
import { type Route, route } from '../route.ts'
import * as s from '../schemas.ts'

export const audit = s.named('Audit', z.object({ entries: z.array(s.auditEntry), next: s.next }))

export const AUDIT: readonly Route[] = [
  route({
    method: 'GET',
    path: '/audit',
    tag: 'log',
    scope: 'read',
    wide: true,
    summary: 'What people and outside systems did, newest first; from the logs and the history',
    query: {
      by: s.name.optional().describe('Who: `ana`, `cli:ana@laptop`, or `http:*`.'),
      kind: s.names
        .optional()
        .describe(`Facts: \`run.cancel_requested\`, or all of a kind: \`run\`. One of ${AUDITED.join(', ')}.`),
      since: s.time.optional().describe('Stored since then.'),
      until: s.time.optional().describe('Stored before then.'),
      ...s.page(1000, 100),
    },
    answer: audit,
    handle: async ({ flow, query: { by, kind, since, until, limit, cursor } }) => {
      const after = cursor === undefined ? undefined : parsePlace(cursor)
      if (cursor !== undefined && !after) throw badCursor()
      const entries = await flow.audit({
        limit,
        ...(by === undefined ? {} : { by }),
        ...(kind === undefined ? {} : { kind }),
        ...(since === undefined ? {} : { since: new Date(since) }),
        ...(until === undefined ? {} : { until: new Date(until) }),
        ...(after === undefined ? {} : { after }),
      })
      const last = entries.length === limit ? entries.at(-1) : undefined
      return { entries, next: last && placeText(last) }
    },
  }),
]
