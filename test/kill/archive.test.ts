import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { connect } from '../../src/index.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { factsOf, rejection } from '../kit/stage.ts'
import { rows, three } from './programs/rows.ts'
import { startRig } from './rig.ts'

const COPY = 'copy'
/** When the lists are stored, and when the state is. */
const STEPS = ['after copy_history_0[.]runs[.]', 'before log[.]0[.]pipeline[.]'] as const

describe('an import', () => {
  it('that dies leaves a namespace that nobody can use, and begins anew when it is run again', async () => {
    await using rig = await startRig()
    using scratch = scratchFolder()
    await rig.engine({ sealAfter: 'never' })
    await rig.start('worker', {}, { KILL_ROWS: '1' })
    const runs = await Promise.all(Array.from({ length: 5 }, (_, i) => rig.materialize(three, `key ${i}`, rows)))
    for (const run of runs) await run.result()
    const archive = join(scratch.path, 'all.jsonl')
    await rig.flow.export({ to: archive, all: true })

    await using copy = await connect({ servers: rig.url, namespace: COPY })
    for (const at of STEPS) {
      await rig.dies('import', { KILL_AT: at }, { namespace: COPY, archive })
      expect(await rejection(copy.runs())).toMatchObject({ code: 'importing' })
      expect(await rejection(copy.engine())).toMatchObject({ code: 'importing' })
      expect(await rejection(copy.setup())).toMatchObject({ code: 'importing' })
    }
    expect(await copy.import(archive)).toMatchObject({ runs: runs.length })
    expect(await copy.runs()).toEqual(await rig.flow.runs())
    for (const { id } of runs) {
      expect(await copy.run(id).result()).toBe('one two three')
      expect(await factsOf(copy, id)).toEqual(await factsOf(rig.flow, id))
    }
    expect(await copy.value(three)).toEqual(await rig.flow.value(three))
    const again = await copy.materialize(three, { pipeline: rows, key: 'key 3' })
    expect([again.id, again.isNew]).toEqual([runs[3]?.id, false])
  })
})
