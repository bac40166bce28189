import { describe, expect, it } from 'vitest'
import { packingOf } from '../../src/engine/archive/ending.ts'
import { formatOf } from '../../src/engine/archive/write.ts'
import { checkProofName } from '../../src/engine/proof/archive.ts'

describe('the name of an archive', () => {
  it.each([
    ['a.jsonl', undefined, 'jsonl', undefined],
    ['a.ndjson', undefined, 'jsonl', undefined],
    ['a.JSONL.GZ', undefined, 'jsonl', 'gzip'],
    ['a.gzip', undefined, 'jsonl', 'gzip'],
    ['a.zstd', undefined, 'jsonl', 'zstd'],
    ['a.jsonl.zst', 'jsonl', 'jsonl', 'zstd'],
    ['a.Parquet', undefined, 'parquet', undefined],
    ['a.parquet', 'parquet', 'parquet', undefined],
    ['s3://kept/a.csv/b', undefined, 'jsonl', undefined],
    ['runs.2026-11-23', undefined, 'jsonl', undefined],
    ['a.dat', 'jsonl', 'jsonl', undefined],
    ['', undefined, 'jsonl', undefined],
    ['', 'parquet', 'parquet', undefined],
  ])('%s, with format %s, is %s, packed by %s', (name, said, format, packing) => {
    expect([formatOf('export', name, said), packingOf(name)]).toEqual([format, packing])
  })

  it.each([
    ['a.csv', undefined, 'export: to: a.csv ends in .csv, which it would not be; end the name in .jsonl'],
    ['a.csv.gz', undefined, 'a.csv.gz ends in .csv, packed'],
    ['a.json', undefined, "or give format: 'jsonl'"],
    ['a.jsonl.br', undefined, 'ends in .br'],
    ['a.br', 'jsonl', 'ends in .br'],
    ['a.parquet.zst', undefined, 'ends in .parquet, packed'],
    ['a.parquet', 'jsonl', 'ends in .parquet'],
    ['a.jsonl', 'parquet', 'a.jsonl must end in .parquet'],
    ['a.csv', 'csv', 'format must be jsonl or parquet'],
  ])('%s, with format %s, is refused, and what to do is said', (name, said, message) => {
    expect(() => formatOf('export', name, said)).toThrow(message)
  })
})

it('the file of a proof has a name that says lines, or that it is a proof', () => {
  for (const name of ['a', 'a.proof', 'a.proof.gz', 'a.jsonl.zst']) checkProofName('proof.export', name)
  for (const name of ['a.csv', 'a.parquet', 'a.proof.br'])
    expect(() => checkProofName('proof.export', name)).toThrow(/^proof.export: a\..* ends in \..*; end the name in/)
})
