/** What `/healthz` and `/readyz` answer. Who may see it is who may reach the port. */
import { messageOf } from '../../../streams/errors.ts'

const READY_MS = 1000

/** What of a flow tells how it is. */
export interface Watched {
  readonly connection?: { readonly state: 'connected' | 'away' | 'closed' }
  readonly ready?: (timeoutMs?: number) => Promise<void>
}

export interface HealthAnswer {
  readonly status: 200 | 503
  readonly text: string
}

/** 200 while the process can be of use again without being started anew. */
export function healthOf({ connection }: Watched): HealthAnswer {
  return connection?.state === 'closed'
    ? { status: 503, text: 'the connection to nats-server is closed for good' }
    : { status: 200, text: 'ok' }
}

/** 200 while it can do its work now; else why not, in a few words. */
export async function readinessOf(flow: Watched): Promise<HealthAnswer> {
  try {
    await flow.ready?.(READY_MS)
    return { status: 200, text: 'ready' }
  } catch (error) {
    return { status: 503, text: messageOf(error) }
  }
}
