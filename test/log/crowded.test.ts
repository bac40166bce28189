import { JetStreamApiError } from '@nats-io/jetstream'
import { expect, it } from 'vitest'
import type { Connection } from '../../src/log/connection.ts'
import { reading } from '../../src/log/crowded.ts'

const connection = { explaining: async (made: Promise<unknown>) => await made } as unknown as Connection
const refused = (err_code: number): Promise<never> =>
  Promise.reject(new JetStreamApiError({ code: 400, err_code, description: 'no' }))

it('who may not read a stream now hears why, and other errors stay as they are', async () => {
  await expect(reading(connection, 'LOG', refused(10026))).rejects.toMatchObject({
    code: 'too_many_readers',
    message: expect.stringContaining('stream LOG has as many consumers as it may have'),
  })
  await expect(reading(connection, 'LOG', refused(10059))).rejects.toBeInstanceOf(JetStreamApiError)
})
