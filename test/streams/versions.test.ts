/**
 * What each version has left behind is read by this one. CONTRIBUTING.md says what to do when this
 * fails.
 */
import { describe, expect, it } from 'vitest'
import { step } from '../../projections/handlers.ts'
import { editDoc, type Key, STATE_KINDS, type View } from '../../projections/state.ts'
import { comparable, differences, runOfKey } from '../../projections/verify/diff.ts'
import { decodeFact, factNames, isTimer } from '../../streams/facts.ts'
import { decodePack } from '../../streams/history.ts'
import { docOf, fixtureNames, type KeptMessage, readFixture } from '../kit/version-fixture.ts'

/** Documents in memory. */
class Documents implements View {
  readonly all = new Map<string, unknown>()

  get<D>(key: Key<D>): D | undefined {
    return this.all.get(key) as D | undefined
  }

  edit<D>(key: Key<D>, create?: () => NoInfer<D>): D {
    return editDoc(this, key, this.get(key), create)
  }

  put<D>(key: Key<D>, doc: D): void {
    this.all.set(key, doc)
  }

  delete<D>(key: Key<D>): void {
    this.all.delete(key)
  }
}

function isDocument({ key }: KeptMessage): boolean {
  return STATE_KINDS.some((kind) => key.startsWith(`${kind}.`))
}

function positionIn(messages: readonly KeptMessage[]): number {
  const engine = messages.find(({ key }) => key === 'engine')
  return engine ? (docOf(engine) as { seq: number }).seq : 0
}

describe.each(fixtureNames())('the log of version %s', (name) => {
  const { examples, streams, runs } = readFixture(name)
  const { log, state, history } = streams

  it('has facts that this version reads as that one did', () => {
    expect(examples.length).toBeGreaterThan(50)
    for (const [i, { name, path, data, payload, contentType }] of examples.entries()) {
      const fact = decodeFact({ path, payload, contentType, shard: 0, seq: i + 1, timeMs: 1 })
      expect(fact.name).toBe(name)
      // A version may add to it.
      expect(fact.data, name).toMatchObject(Object(data))
    }
  })

  it('is folded to the state that it was folded to then, from the base on', () => {
    const view = new Documents()
    for (const message of history.filter(isDocument)) view.put(message.key, docOf(message))
    const base = positionIn(history)
    expect(base).toBeGreaterThan(0)
    let folded = 0
    for (const { key: path, seq, timeMs, headers, payload } of log) {
      if (seq <= base || seq > positionIn(state) || isTimer(path)) continue
      step(view, decodeFact({ path, payload, contentType: headers['Content-Type'], shard: 0, seq, timeMs }))
      folded += 1
    }
    expect(folded).toBeGreaterThan(20)
    const then = new Map(state.filter(isDocument).map((message) => [message.key, docOf(message)]))
    expect(then.size).toBeGreaterThan(10)
    const left = new Set(
      history.flatMap((one) => (one.key.startsWith('wave.') ? (docOf(one) as { runs: string[] }).runs : [])),
    )
    for (const key of new Set([...view.all.keys(), ...then.keys()])) {
      // Documents of sealed runs leave a while later.
      if (left.has(runOfKey(key) ?? '')) continue
      const doc = view.all.get(key) ?? null
      const now = doc instanceof Uint8Array ? doc : (JSON.parse(JSON.stringify(doc)) as unknown)
      expect(differences(comparable(key, then.get(key) ?? null), comparable(key, now)), key).toEqual([])
    }
    expect(then.get(`run.${runs.open}`)).toMatchObject({ status: 'running' })
  })

  it('has packs that this version reads', async () => {
    const packs = history.filter(({ key }) => key.startsWith('pack.'))
    const sealed = (await Promise.all(packs.map(({ payload }) => decodePack(payload)))).flat()
    const run = sealed.find((one) => one.run === runs.sealed)
    const names = run?.facts.map((fact) => decodeFact({ ...fact, shard: 0 }).name)
    expect(names).toEqual(expect.arrayContaining(['run.requested', 'asset.materialized', 'run.finished']))
    expect(run?.docs[`run.${runs.sealed}`]).toMatchObject({ status: 'succeeded' })
  })
})

it('the newest log that is kept has all facts that there are', () => {
  const newest = fixtureNames().at(-1) ?? ''
  const kept = new Set(readFixture(newest).examples.map(({ name }) => name))
  const missing = factNames().filter((name) => !kept.has(name))
  // Else: `node scripts/version-fixture.ts NAME`, see CONTRIBUTING.md.
  expect(missing).toEqual([])
})
