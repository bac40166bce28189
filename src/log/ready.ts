/** Whether a process can do its work, for those who watch it. */
import { FlowStoneError, InvalidError, messageOf } from '../../streams/errors.ts'
import { shown } from '../../streams/shown.ts'
import { atMost } from '../options/timer.ts'
import type { Connection } from './connection.ts'
import { streamBounds } from './nats.ts'

/** Throws FlowStoneError `unavailable`, whose message says why. */
export async function mustBeReady(
  connection: Connection,
  stream: string,
  timeoutMs: number,
  parts: { mustWork(): void },
): Promise<void> {
  if (!(Number.isFinite(timeoutMs) && timeoutMs > 0))
    throw new InvalidError(`ready: timeoutMs must be a number of milliseconds above 0, got ${shown(timeoutMs)}`)
  const { state, since, reason, full } = connection.status
  if (state !== 'connected') {
    const when = since ? ` since ${since.toISOString()}` : ''
    throw new FlowStoneError('unavailable', `nats-server ${state}${when}${reason === undefined ? '' : `: ${reason}`}`)
  }
  parts.mustWork()
  if (full.length > 0) throw new FlowStoneError('unavailable', `JetStream storage is full: ${full.join(', ')}`)
  try {
    const asking = connection.untilDisconnect((nc) => streamBounds(nc, stream, timeoutMs))
    const answer = await atMost(timeoutMs, asking)
    if (answer === 'late') throw new FlowStoneError('unavailable', `no answer within ${timeoutMs} ms`)
    if (!answer) throw new FlowStoneError('unavailable', 'the connection broke')
  } catch (cause) {
    throw new FlowStoneError('unavailable', `JetStream does not answer for ${stream}: ${messageOf(cause)}`, { cause })
  }
}
