import { describe, expect, it } from 'vitest'
import { type EngineRetention, parseEngineRetention } from '../../src/engine/retention.ts'

const DAY = 86_400_000
const parse = (given: unknown): ReturnType<typeof parseEngineRetention> =>
  parseEngineRetention('engine: retention', given as EngineRetention)

describe('where runs are archived to', () => {
  it('is no part of how long they are kept', () => {
    const client = { send: async () => ({}) }
    expect(parse(undefined)).toEqual({ retention: {}, archive: undefined })
    expect(parse({ runs: '1d' })).toEqual({ retention: { runsMs: DAY }, archive: undefined })
    expect(parse({ archive: 's3://bucket' })).toEqual({ retention: {}, archive: { to: 's3://bucket' } })
    const archive = { to: 'file:///var/archive', client }
    expect(parse({ failed: 'never', archive })).toEqual({ retention: { failedMs: 0 }, archive })
  })

  it.each<[unknown, string]>([
    ['1d', 'engine: retention must be an object'],
    [null, 'engine: retention must be an object'],
    [{ archives: 's3://bucket' }, 'archives'],
    [{ archive: '/var/archive' }, 'engine: retention: archive must be s3://BUCKET/PREFIX or file:FOLDER'],
    [{ archive: 's3://' }, 'engine: retention: archive must be s3://BUCKET/PREFIX or file:FOLDER'],
    [{ archive: 'file://%' }, 'engine: retention: archive: file://%/archive is no address of a file'],
    [{ archive: null }, 'engine: retention: archive must be s3://BUCKET/PREFIX or file:FOLDER'],
    [{ archive: { to: 'bucket' } }, 'engine: retention: archive: to must be s3://BUCKET/PREFIX'],
    [{ archive: { to: 's3://bucket', key: 'a' } }, 'key'],
    [{ archive: { to: 's3://bucket', client: {} } }, 'client must be an S3Client'],
  ])('refuses %j', (given, message) => {
    expect(() => parse(given)).toThrow(message)
  })
})
