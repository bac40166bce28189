import { expect, it } from 'vitest'
import { listKey } from '../../projections/run/lists.ts'
import { STATE_KINDS, stateKey } from '../../projections/state.ts'

it('STATE_KINDS names the kinds of all documents', () => {
  const at = { run: '0-a', asset: 'a', gate: 'a1n1' }
  const keys = [
    stateKey.run('0-a'),
    stateKey.open('0-a'),
    stateKey.pipeline('p', 'v'),
    stateKey.newest('p'),
    stateKey.asset('p', 'a', undefined),
    stateKey.barrier('0-a', 'a'),
    stateKey.segment('0-a', 'a', 0),
    stateKey.subscription('p', 's'),
    stateKey.openRuns('p', 's'),
    stateKey.eventGroup('p', 's', 'g'),
    stateKey.limitedQueues('p', 'q'),
    stateKey.gates(at),
    stateKey.gateAlone(at),
    stateKey.waiting(1, at),
    stateKey.waitingAlone(1, at),
    stateKey.child(at),
    stateKey.resuming('0-a', 'a', 'a1n1'),
    stateKey.failures('0-a', 'a', 0),
    stateKey.schedule('p', 's'),
    stateKey.sensor('p', 's'),
    stateKey.concurrency('p', 'g'),
    stateKey.keyChunks('0-a', 'a', 0),
    listKey.list('all'),
  ]
  expect(Object.keys(stateKey)).toHaveLength(keys.length - 1)
  const kinds = keys.map((key) => key.split('.')[0])
  expect([...new Set(kinds)].toSorted()).toEqual([...STATE_KINDS].toSorted())
})
