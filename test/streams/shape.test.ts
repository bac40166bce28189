import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { asset } from '../../src/index.ts'
import { shapeDifferences } from '../../streams/shape.ts'

const execute = (): number => 1
const scatter = (): number[] => [1]
const a = asset('a', { execute })
const b = asset('b', { execute })
const plain = asset('x', { execute }).definition.spec
const spread = asset('x', { scatter, execute }).definition.spec

describe('the shape of an asset', () => {
  it.each([
    ['a dependency', asset('x', { dependsOn: [a], execute }).definition.spec, plain, 'dependsOn (nothing → a)'],
    ['onSignal', asset('x', { execute, onSignal: execute }).definition.spec, plain, 'onSignal (no → yes)'],
    ['onTimeout', asset('x', { execute, onTimeout: execute }).definition.spec, plain, 'onTimeout (no → yes)'],
    ['codeVersion', asset('x', { execute, codeVersion: '2' }).definition.spec, plain, 'codeVersion (none → 2)'],
    ['gather', asset('x', { scatter, execute, gather: execute }).definition.spec, spread, 'gather (no → yes)'],
    [
      'failureMode',
      asset('x', { scatter, execute, scatterOptions: { failureMode: 'partial' } }).definition.spec,
      spread,
      'failureMode (all_or_nothing → partial)',
    ],
    [
      'duplicates',
      asset('x', { scatter, execute, scatterOptions: { duplicates: 'drop' } }).definition.spec,
      spread,
      'duplicates (error → drop)',
    ],
  ])('changes with %s', (_, changed, before, said) => {
    expect(changed.shape).not.toBe(before.shape)
    expect(shapeDifferences(before, changed)).toEqual([said])
  })

  it('changes when a plain asset becomes a scatter, and with the payload schema', () => {
    expect(spread.shape).not.toBe(plain.shape)
    const shapeWith = (payloadSchema: z.ZodType): string => asset('x', { execute, payloadSchema }).definition.spec.shape
    const one = shapeWith(z.object({ a: z.string() }))
    expect(shapeWith(z.object({ a: z.string() }))).toBe(one)
    expect(shapeWith(z.object({ a: z.int() }))).not.toBe(one)
  })

  it('stays the same with what the engine decides, or limits, and with the order of dependencies', () => {
    const options = { execute, dependsOn: [a, b] as const }
    const { shape } = asset('x', options).definition.spec
    const changed = [
      asset('x', { execute, dependsOn: [b, a] }),
      asset('x', { ...options, queue: 'fast', priority: 0, timeout: '1m', retry: { maxAttempts: 9 } }),
      asset('x', { ...options, slots: { bucket: 'gpu', max: 2 } }),
    ]
    for (const { definition } of changed) expect(definition.spec.shape).toBe(shape)
  })

  it.each(['', 'x'.repeat(129), '\ud800', 2])('refuses the codeVersion %j', (codeVersion) => {
    expect(() => asset('x', { execute, codeVersion: codeVersion as string })).toThrow(
      /asset x: codeVersion must be text/,
    )
  })
})
