/** The least that each role needs, as docs/permissions.md has it. */
import type { Permissions } from './guarded.ts'

export interface Deployment {
  readonly ns: string
  readonly shards: number
  readonly pipeline: string
  readonly queue: string
}

export const ROLES = ['engine', 'worker', 'client', 'gates', 'http', 'operator', 'feed', 'trigger'] as const
export type Role = (typeof ROLES)[number]

export function permissionsOf(role: Role, { ns, shards, pipeline, queue }: Deployment): Permissions {
  const each = (subjects: (shard: number) => string[]): string[] =>
    Array.from({ length: shards }, (_, shard) => subjects(shard)).flat()
  const subscribe = [`_INBOX_${role}.>`]
  // What everybody does who connects with FlowStone: is there JetStream, where is the namespace,
  // what time is it?
  const connects = [
    '$JS.API.INFO',
    `$JS.API.STREAM.MSG.GET.KV_${ns}_control`,
    `$JS.API.STREAM.INFO.${ns}_LOG_0`,
    `$JS.API.STREAM.INFO.KV_${ns}_control`,
  ]
  const readsLog = each((shard) => [
    `$JS.API.STREAM.INFO.${ns}_LOG_${shard}`,
    `$JS.API.STREAM.MSG.GET.${ns}_LOG_${shard}`,
    `$JS.API.DIRECT.GET.${ns}_LOG_${shard}`,
  ])
  const readsState = each((shard) => [
    `$JS.API.STREAM.MSG.GET.KV_${ns}_state_${shard}`,
    `$JS.API.STREAM.INFO.KV_${ns}_state_${shard}`,
    `$JS.API.DIRECT.GET.KV_${ns}_state_${shard}`,
    `$JS.API.STREAM.MSG.GET.KV_${ns}_history_${shard}`,
    `$JS.API.DIRECT.GET.KV_${ns}_history_${shard}`,
  ])
  const followsState = each((shard) => [
    `$JS.API.CONSUMER.CREATE.KV_${ns}_state_${shard}`,
    `$JS.API.CONSUMER.CREATE.KV_${ns}_state_${shard}.>`,
    `$JS.API.CONSUMER.MSG.NEXT.KV_${ns}_state_${shard}.>`,
    `$JS.API.CONSUMER.DELETE.KV_${ns}_state_${shard}.>`,
  ])
  const readsLogs = `$JS.API.DIRECT.GET.${ns}_LOGS`
  const readsBlobs = [`$JS.API.DIRECT.GET.OBJ_${ns}_blobs`, `$JS.API.STREAM.MSG.GET.OBJ_${ns}_blobs`]
  switch (role) {
    case 'trigger':
      return { publish: [`${ns}.trigger.${pipeline}.*`], subscribe }
    case 'feed':
      return {
        publish: [
          `$JS.API.CONSUMER.INFO.${ns}_FEED.outside`,
          `$JS.API.CONSUMER.MSG.NEXT.${ns}_FEED.outside`,
          `$JS.ACK.${ns}_FEED.outside.>`,
        ],
        subscribe,
      }
    case 'client':
      return {
        publish: [
          ...connects,
          ...readsLog,
          ...readsState,
          ...followsState,
          ...readsBlobs,
          `${ns}.log.*.pipeline.${pipeline}.*.registered`,
          `${ns}.log.*.run.*.requested`,
          `${ns}.log.*.run.*.cancel_requested`,
          `$O.${ns}_blobs.>`,
          `${ns}.workers.${pipeline}`,
          `$JS.API.STREAM.MSG.GET.KV_${ns}_limits`,
          `$JS.API.STREAM.INFO.KV_${ns}_limits`,
        ],
        subscribe: [...subscribe, `${ns}.notify.run.*`],
      }
    case 'gates':
      return {
        publish: [
          ...connects,
          ...readsLog,
          ...readsState,
          `${ns}.log.*.gate.>`,
          `$KV.${ns}_control.early.>`,
          `$KV.${ns}_control.delivery.>`,
          `$KV.${ns}_control.refused.>`,
        ],
        subscribe,
      }
    case 'http':
      return {
        publish: [
          ...connects,
          ...readsLog,
          ...readsState,
          ...followsState,
          ...readsBlobs,
          `${ns}.log.*.gate.>`,
          `$KV.${ns}_control.early.>`,
          `$KV.${ns}_control.delivery.>`,
          `$KV.${ns}_control.refused.>`,
          `${ns}.log.*.run.*.requested`,
          `$O.${ns}_blobs.>`,
          `$JS.API.STREAM.PURGE.OBJ_${ns}_blobs`,
          `${ns}.workers.${pipeline}`,
          `$JS.API.STREAM.MSG.GET.KV_${ns}_limits`,
          `$JS.API.STREAM.INFO.KV_${ns}_limits`,
          readsLogs,
        ],
        subscribe: [...subscribe, `${ns}.notify.run.*`, `${ns}.logs.>`],
      }
    case 'operator':
      return {
        publish: [
          ...connects,
          ...readsLog,
          ...readsState,
          ...followsState,
          ...readsBlobs,
          `$JS.API.STREAM.NAMES`,
          `$JS.API.DIRECT.GET.KV_${ns}_control`,
          ...each((shard) => [
            `$JS.API.CONSUMER.CREATE.${ns}_LOG_${shard}`,
            `$JS.API.CONSUMER.CREATE.${ns}_LOG_${shard}.>`,
            `$JS.API.CONSUMER.DELETE.${ns}_LOG_${shard}.>`,
            `$JS.API.CONSUMER.MSG.NEXT.${ns}_LOG_${shard}.>`,
          ]),
          `$JS.API.STREAM.MSG.GET.${ns}_PROOF`,
          `$JS.API.CONSUMER.CREATE.${ns}_PROOF.>`,
          `$JS.API.CONSUMER.DELETE.${ns}_PROOF.>`,
          `$JS.API.CONSUMER.MSG.NEXT.${ns}_PROOF.>`,
          `${ns}.log.*.run.*.requested`,
          `${ns}.log.*.run.*.cancel_requested`,
          `${ns}.log.*.run.*.adopt_requested`,
          `${ns}.log.*.scatter.*.*.cancel_requested`,
          `${ns}.log.*.scatter.*.*.hold.*`,
          `${ns}.log.0.schedule.*.*.hold.*`,
          `${ns}.log.0.sensor.*.*.hold.*`,
          `${ns}.log.0.sensor.*.*.triggered.*`,
          `${ns}.log.0.schedule.*.*.triggered.*`,
          `${ns}.log.0.schedule.*.*.backfill_requested.*`,
          `${ns}.log.*.gate.>`,
          `$KV.${ns}_control.refused.>`,
          `${ns}.workers.*`,
          // What the doctor looks at.
          `${ns}.engines`,
          '$SYS.REQ.USER.INFO',
          ...each((shard) => [
            `$JS.API.STREAM.INFO.${ns}_WORK_${shard}`,
            `$JS.API.CONSUMER.LIST.${ns}_WORK_${shard}`,
            `$JS.API.STREAM.INFO.KV_${ns}_history_${shard}`,
          ]),
          `$JS.API.STREAM.INFO.${ns}_TRIGGERS`,
          `$JS.API.STREAM.INFO.${ns}_FEED`,
          `$JS.API.STREAM.MSG.GET.${ns}_FEED`,
          `$JS.API.STREAM.INFO.${ns}_PROOF`,
          `$JS.API.STREAM.INFO.OBJ_${ns}_blobs`,
          `$JS.API.STREAM.MSG.GET.KV_${ns}_limits`,
          `$JS.API.STREAM.INFO.KV_${ns}_limits`,
          `$KV.${ns}_limits.>`,
          `$KV.${ns}_control.prune.*`,
          readsLogs,
          `$JS.API.STREAM.INFO.${ns}_LOGS`,
        ],
        subscribe: [...subscribe, `${ns}.notify.run.*`, `${ns}.logs.>`],
      }
    case 'worker':
      return {
        publish: [
          ...connects,
          ...readsLog,
          ...readsState,
          ...readsBlobs,
          `$O.${ns}_blobs.>`,
          `$JS.API.STREAM.PURGE.OBJ_${ns}_blobs`,
          ...each((shard) => [
            `$JS.API.CONSUMER.CREATE.${ns}_LOG_${shard}.>`,
            `$JS.API.CONSUMER.MSG.NEXT.${ns}_LOG_${shard}.>`,
            `$JS.API.CONSUMER.DELETE.${ns}_LOG_${shard}.>`,
            `$JS.API.STREAM.INFO.${ns}_WORK_${shard}`,
            `$JS.API.CONSUMER.CREATE.${ns}_WORK_${shard}.>`,
            `$JS.API.CONSUMER.MSG.NEXT.${ns}_WORK_${shard}.>`,
            `$JS.ACK.${ns}_WORK_${shard}.>`,
          ]),
          `${ns}.log.*.pipeline.${pipeline}.*.registered`,
          `${ns}.log.*.asset.${pipeline}.>`,
          `${ns}.log.*.scatter.>`,
          `${ns}.log.*.gate.>`,
          `${ns}.log.*.correlation.>`,
          `${ns}.work.*.${pipeline}.${queue}.>`,
          `${ns}.logs.${pipeline}.>`,
          `${ns}.notify.>`,
          // What it runs now, when an operator or a client asks.
          '_INBOX_operator.>',
          '_INBOX_client.>',
          '_INBOX_http.>',
          // Whether what comes a second time is in the hands of a worker that lives.
          '_INBOX_worker.>',
          `${ns}.workers.${pipeline}.held`,
          `${ns}.workers.${pipeline}`,
          `$KV.${ns}_control.worker.*`,
          `$KV.${ns}_control.refused.>`,
          `$JS.API.DIRECT.GET.KV_${ns}_control`,
          `$KV.${ns}_limits.>`,
          `$JS.API.STREAM.INFO.KV_${ns}_limits`,
          `$JS.API.STREAM.MSG.GET.KV_${ns}_limits`,
          `$JS.API.DIRECT.GET.KV_${ns}_limits`,
          `$JS.API.CONSUMER.CREATE.KV_${ns}_limits.>`,
          `$JS.API.CONSUMER.DELETE.KV_${ns}_limits.>`,
        ],
        subscribe: [...subscribe, `${ns}.notify.>`, `${ns}.workers.${pipeline}`, `${ns}.workers.${pipeline}.held`],
      }
    case 'engine': {
      const streams = [
        ...each((shard) => [
          `${ns}_LOG_${shard}`,
          `${ns}_WORK_${shard}`,
          `KV_${ns}_state_${shard}`,
          `KV_${ns}_history_${shard}`,
        ]),
        `${ns}_TRIGGERS`,
        `${ns}_FEED`,
        `${ns}_PROOF`,
        `${ns}_LOGS`,
        `KV_${ns}_control`,
        `KV_${ns}_limits`,
        `OBJ_${ns}_blobs`,
      ]
      return {
        publish: [
          '$JS.API.INFO',
          '$JS.API.STREAM.NAMES',
          `$JS.API.STREAM.MSG.DELETE.${ns}_PROOF`,
          ...streams.flatMap((stream) => [
            `$JS.API.STREAM.*.${stream}`,
            `$JS.API.STREAM.MSG.GET.${stream}`,
            `$JS.API.DIRECT.GET.${stream}`,
            `$JS.API.CONSUMER.*.${stream}.>`,
            `$JS.API.CONSUMER.MSG.NEXT.${stream}.>`,
            `$JS.API.CONSUMER.LIST.${stream}`,
          ]),
          `${ns}.log.>`,
          `${ns}.work.>`,
          `${ns}.feed.>`,
          `${ns}.feed_position.*`,
          `${ns}.proof.*.*`,
          `${ns}.notify.>`,
          `$KV.${ns}_control.>`,
          // Who it is, when the doctor or the console asks.
          '_INBOX_operator.>',
          '_INBOX_http.>',
          `$O.${ns}_blobs.>`,
          ...each((shard) => [`$KV.${ns}_state_${shard}.>`, `$KV.${ns}_history_${shard}.>`]),
        ],
        subscribe: [...subscribe, `$KV.${ns}_control.claim.*`, `${ns}.engines`],
      }
    }
  }
}
