/** `export const worker = { … }`: what the code of a file needs of the process that runs it. */
import { InvalidError } from '../../streams/errors.ts'
import { isAsset } from '../define/asset-type.ts'
import { type OptionNames, refuseUnknown } from '../options/unknown.ts'
import type { WorkerConfig } from '../worker/options.ts'

const OPTIONS: OptionNames<WorkerConfig> = {
  resources: true,
  io: true,
  hooks: true,
  logger: true,
  logs: true,
  concurrency: true,
  queues: true,
  ackWait: true,
  drainTimeout: true,
  maxBlocked: true,
}
const LEVELS = ['debug', 'info', 'warn', 'error']

/**
 * The one of a module, as it is; undefined if it has none. An asset or a pipeline of that name is
 * none. The values are checked by whoever takes them.
 */
export function workerConfigOf(file: string, exported: Readonly<Record<string, unknown>>): WorkerConfig | undefined {
  const config = exported.worker
  if (config === undefined || isAsset(config) || isPipelineLike(config)) return undefined
  const at = `${file}: export const worker`
  if (typeof config !== 'object' || config === null)
    throw new InvalidError(`${at} must be an object, such as { resources: { db } }, got ${kindOf(config)}`)
  refuseUnknown(at, config, OPTIONS)
  const { io, resources, logger }: WorkerConfig = config
  for (const [name, value] of Object.entries({ io, resources }))
    if (value !== undefined && (typeof value !== 'object' || value === null || Array.isArray(value)))
      throw new InvalidError(`${at}: ${name} must be an object, got ${kindOf(value)}`)
  if (logger !== undefined && !LEVELS.every((level) => typeof Reflect.get(Object(logger), level) === 'function'))
    throw new InvalidError(`${at}: logger must have the functions ${LEVELS.join(', ')}`)
  return config
}

/** One process has one: the same object may come out of several files. */
export function onlyConfig(files: readonly { readonly file: string; readonly config: WorkerConfig }[]): WorkerConfig {
  const [first, ...others] = files.filter(({ config }) => Object.keys(config).length > 0)
  const other = others.find(({ config }) => config !== first?.config)
  if (first && other)
    throw new InvalidError(
      `${first.file} and ${other.file} both export worker: let both export the same object, or start two workers`,
    )
  return first?.config ?? {}
}

function kindOf(value: unknown): string {
  return Array.isArray(value) ? 'a list' : value === null ? 'null' : typeof value
}

function isPipelineLike(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'spec' in value && 'assets' in value
}
