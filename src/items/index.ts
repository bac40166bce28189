/**
 * `flowstone/items`: sources of keys that are read on from a durable cursor, and batches of items.
 */
export { type Batch, type BatchOptions, batch, type GroupedBatch } from './batch.ts'
export type { ByteRange, ByteSource } from './byte-source.ts'
export { type CsvOptions, readCsv } from './csv.ts'
export { type LinesOptions, readJsonLines, readLines } from './lines.ts'
export { type ParquetOptions, readParquet } from './parquet.ts'
export { type PostgresClientLike, type PostgresOptions, readPostgres } from './postgres.ts'
export { type Chunk, ItemReader, type ItemReaderOptions, itemReader, type ReaderRetry } from './reader.ts'
export {
  readS3Objects,
  type S3ClientLike,
  type S3Item,
  type S3ListOptions,
  type S3ObjectOptions,
  s3Object,
} from './s3.ts'
export {
  type ItemError,
  type ItemResult,
  itemResults,
  type SettledItems,
  type SettleOptions,
  settleItems,
} from './settle.ts'
