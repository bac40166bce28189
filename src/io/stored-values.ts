/** Values of assets that stand on the log. */

import { FlowStoneError } from '../../streams/errors.ts'
import type { StoredValue, ValueAt } from '../../streams/schemas.ts'
import type { Names } from '../../streams/subjects.ts'
import type { Connection } from '../log/connection.ts'
import { sealedAt } from '../log/history.ts'
import { directGet } from '../log/nats.ts'
import { factOf } from '../log/read-fact.ts'
import type { Io } from './manager.ts'

/** The value at a place of the log. */
export async function loadValueAt(
  connection: Connection,
  names: Names,
  io: Io,
  at: ValueAt,
  signal?: AbortSignal,
): Promise<unknown> {
  return await io.load(await storedValueAt(connection, names, at, signal), signal)
}

export async function storedValueAt(
  connection: Connection,
  names: Names,
  at: ValueAt,
  signal?: AbortSignal,
): Promise<StoredValue> {
  const message = await connection.read((nc) => directGet(nc, names.log(at.shard), { seq: at.seq }), signal)
  const fact = message ? factOf(names, at.shard, message) : await sealedAt({ connection, names }, at.shard, at.seq)
  if (!fact)
    throw new FlowStoneError('missing_value', `log and history of ${names.log(at.shard)} have no message ${at.seq}`)
  if (at.input !== undefined) {
    const given = fact.name === 'run.requested' ? fact.data.input?.[at.input] : undefined
    if (given) return given
    throw new FlowStoneError(
      'missing_value',
      `message ${at.seq} of ${names.log(at.shard)} is ${fact.name}, and gives no input ${at.input}`,
    )
  }
  if (fact.name !== 'asset.materialized')
    throw new FlowStoneError(
      'missing_value',
      `message ${at.seq} of ${names.log(at.shard)} is ${fact.name}, not a value`,
    )
  return fact.data.value
}
