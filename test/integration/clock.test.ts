import { describe, expect, it, vi } from 'vitest'
import { ServerClock } from '../../src/log/clock.ts'
import { Connection } from '../../src/log/connection.ts'
import { ensureTopology } from '../../streams/topology.ts'
import { useServer } from '../kit/fixture.ts'
import { freshNamespace } from '../kit/stage.ts'

const server = useServer()

describe('the server clock', () => {
  it('the server clock tells the time of the server, and never runs ahead of it, when the clock of this host is an hour off', async () => {
    const connection = await Connection.open({ servers: server.url })
    const { names } = await ensureTopology(connection.nc, { namespace: freshNamespace() })
    const clock = new ServerClock(connection, names.log(0))
    const realNow = Date.now.bind(Date)
    for (const offMs of [3_600_000, -3_600_000]) {
      vi.spyOn(Date, 'now').mockImplementation(() => realNow() + offMs)
      await clock.ready()
      const atLeast = clock.atLeast()
      const now = clock.now()
      vi.restoreAllMocks()
      // Server and test share a host, so its real clock is the server's.
      // (Date.now leaves the fraction of a millisecond out.)
      expect(atLeast).toBeLessThan(realNow() + 1)
      expect(Math.abs(now - realNow())).toBeLessThan(1000)
    }
    await connection.close()
  })

  it('believes a time of the server that is later than what it thought possible', async () => {
    const connection = await Connection.open({ servers: server.url })
    const { names } = await ensureTopology(connection.nc, { namespace: freshNamespace() })
    const clock = new ServerClock(connection, names.log(0))
    await clock.ready()
    const later = clock.atLeast() + 5000
    clock.heard(later)
    expect(clock.atLeast()).toBeGreaterThanOrEqual(later)
    clock.heard(later - 60_000)
    expect(clock.atLeast()).toBeGreaterThanOrEqual(later)
    await connection.close()
  })
})
