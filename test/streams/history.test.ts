import { describe, expect, it } from 'vitest'
import { decodePack, encodePack, type SealedRun } from '../../streams/history.ts'

const bytes = (...of: number[]): Uint8Array => new Uint8Array(of)

describe('a pack', () => {
  it('gives back the runs that it was made of', async () => {
    const runs: SealedRun[] = [
      {
        run: '0-a',
        docs: { 'run.0-a': { status: 'succeeded', text: 'ü\u0000' } },
        facts: [
          {
            path: 'run.0-a.requested',
            seq: 7,
            timeMs: 1_790_000_000_123,
            contentType: 'application/json',
            payload: bytes(1, 2),
          },
          { path: 'run.0-a.finished', seq: 2 ** 40, timeMs: 1, contentType: undefined, payload: bytes() },
        ],
      },
      { run: '0-b', docs: {}, facts: [] },
    ]
    const back = await decodePack(await encodePack(runs))
    expect(back).toEqual(runs)
    expect(back[0]?.facts[0]?.payload).toBeInstanceOf(Uint8Array)
  })

  it('is refused when it is damaged', async () => {
    const pack = await encodePack([{ run: '0-a', docs: {}, facts: [] }])
    await expect(decodePack(pack.subarray(0, pack.length - 3))).rejects.toMatchObject({ code: 'undecodable' })
    await expect(decodePack(bytes(1, 2, 3))).rejects.toMatchObject({ code: 'undecodable' })
  })
})
