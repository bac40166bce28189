/**
 * Pipelines out of a user's file. Node runs TypeScript as it is, as long as its types can be
 * stripped.
 */
import { existsSync } from 'node:fs'
import { registerHooks } from 'node:module'
import { basename, dirname, resolve, sep } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { nearest } from '../../streams/did-you-mean.ts'
import { FlowStoneError, InvalidError, messageOf } from '../../streams/errors.ts'
import { type AnyAsset, isAsset } from '../define/asset-type.ts'
import { declaredPipelines, giveHooks, isPipeline, type Pipeline, pipelinesOf } from '../define/pipeline.ts'
import type { WorkerConfig } from '../worker/options.ts'
import { workerConfigOf } from './worker-config.ts'

/** What a file exports for workers. */
export interface WorkerFile {
  readonly file: string
  readonly pipelines: readonly Pipeline[]
  /** `export const worker`; `{}` if there is none. */
  readonly config: WorkerConfig
}

/**
 * All pipelines that the file exports, by whatever name, and its configuration of workers. Throws
 * InvalidError when there is no such file, or no pipeline in it, and `load_failed` when it throws.
 */
export async function loadFile(file: string): Promise<WorkerFile> {
  const before = new Set(declaredPipelines())
  const exported = await loadModule(file)
  const pipelines = pipelinesIn(file, exported, before)
  const config = workerConfigOf(file, exported) ?? {}
  if (config.hooks !== undefined)
    for (const one of pipelines) giveHooks(`${file}: export const worker: hooks`, one, config.hooks)
  return { file, pipelines, config }
}

/** As `loadFile`, the pipelines alone. */
export async function loadPipelines(file: string): Promise<readonly Pipeline[]> {
  return (await loadFile(file)).pipelines
}

function pipelinesIn(
  file: string,
  exported: Readonly<Record<string, unknown>>,
  before: ReadonlySet<Pipeline>,
): readonly Pipeline[] {
  const found = [...new Set(Object.values(exported).filter(isPipeline))]
  if (found.length > 0) return found
  const assets = Object.values(exported).filter(isAsset)
  const declared = [
    ...new Set(
      [...assets.flatMap(pipelinesOf), ...declaredPipelines().filter((one) => !before.has(one))].map(
        ({ name }) => name,
      ),
    ),
  ]
  if (declared.length > 0)
    throw new InvalidError(
      `${file} declares ${declared.length === 1 ? 'the pipeline' : 'pipelines'} ${declared.join(', ')} and exports none: write export before its const, or export default`,
    )
  const hint =
    assets.length > 0
      ? `; put its assets into one: export default pipeline('name', [${assets.map(({ name }) => name).join(', ')}])`
      : "; export one: export default pipeline('name', [asset, …])"
  throw new InvalidError(`${file} exports no pipeline${hint}`)
}

/**
 * What the file exports. Throws InvalidError when there is no such file, and `load_failed` when it
 * throws.
 */
export async function loadModule(file: string): Promise<Record<string, unknown>> {
  const path = resolve(file)
  if (!existsSync(path)) throw new InvalidError(`there is no file ${file}`)
  try {
    return await import(pathToFileURL(path).href)
  } catch (cause) {
    const advice = adviceOn(cause)
    const why = `${messageOf(cause)}${whereIn(cause)}${advice === undefined ? '' : `. ${advice}`}`
    throw new FlowStoneError('load_failed', `${file} cannot be loaded: ${why}`, { cause })
  }
}

/**
 * What to do about what people meet most often: Node takes the types away and changes nothing else,
 * and finds files by their whole names.
 */
function adviceOn(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined
  const code: unknown = 'code' in error ? error.code : undefined
  const text = error.message
  if (code === 'ERR_UNSUPPORTED_TYPESCRIPT_SYNTAX' || (error instanceof SyntaxError && /@|decorator|token/.test(text)))
    return 'Node runs TypeScript by taking its types away: no enum, namespace, parameter property or decorator. Write a constant object in place of an enum, or compile the file first'
  if (code !== 'ERR_MODULE_NOT_FOUND') return undefined
  const missing = /Cannot find (?:module|package) '([^']+)'/.exec(text)?.[1] ?? ''
  if (/\.[cm]?js$/.test(missing) && existsSync(missing.replace(/js$/, 'ts')))
    return `There is ${basename(missing).replace(/js$/, 'ts')}: import it with that ending, as Node does not look for another one`
  if (!missing.startsWith('/') && /^(@\/|~\/|~|src\/|#)/.test(missing))
    return `Node does not read paths of tsconfig.json: import ${missing} by its relative path, or name it in imports of package.json ('#…')`
  if (missing.startsWith('/') && ['.ts', '.js', '.mts', '.mjs'].some((ending) => existsSync(`${missing}${ending}`)))
    return 'Write the ending of the file too (./name.ts)'
  return undefined
}

/**
 * The asset of that name, and its pipeline. `pipeline`: its name, where several have such an asset.
 */
export function findAsset(
  pipelines: readonly Pipeline[],
  name: string,
  pipeline?: string,
): { readonly asset: AnyAsset; readonly pipeline: Pipeline } {
  const among = pipeline === undefined ? pipelines : pipelines.filter((one) => one.name === pipeline)
  if (pipeline !== undefined && among.length === 0)
    throw new InvalidError(
      `there is no pipeline ${pipeline}${nearest(
        pipeline,
        pipelines.map((one) => one.name),
      )}`,
    )
  const found = among.flatMap((one) =>
    one.assets
      .filter((asset) => asset.name === name && !asset.definition.spec.internal)
      .map((asset) => ({ asset, pipeline: one })),
  )
  const [first] = found
  if (!first) {
    const names = among.flatMap(({ assets }) =>
      assets.flatMap(({ name, definition }) => (definition.spec.internal ? [] : [name])),
    )
    throw new InvalidError(`there is no asset ${name}${nearest(name, names)}`)
  }
  if (found.length > 1)
    throw new InvalidError(
      `asset ${name} is in several pipelines (${found.map((one) => one.pipeline.name).join(', ')}); name one with --pipeline`,
    )
  return first
}

/**
 * Calls back with every file of the user's that is loaded from now on: what a change of means that
 * the code has changed.
 */
export function watchLoads(onFile: (path: string) => void): void {
  const own = dirname(dirname(dirname(fileURLToPath(import.meta.url)))) + sep
  const ours = ['src', 'streams', 'projections', 'dist'].map((folder) => `${own}${folder}${sep}`)
  registerHooks({
    load: (url, context, next) => {
      if (url.startsWith('file:')) {
        const path = fileURLToPath(url)
        const foreign = path.includes(`${sep}node_modules${sep}`) || ours.some((folder) => path.startsWith(folder))
        if (!foreign) onFile(path)
      }
      return next(url, context)
    },
  })
}

/**
 * The place in the user's code, where the error tells it: in the first lines of a syntax error, or
 * the first frame that is a file.
 */
function whereIn(error: unknown): string {
  if (!(error instanceof Error)) return ''
  const place =
    /^(file:\/\/\S+:\d+|\/\S+:\d+)$/m.exec(error.stack ?? '')?.[1] ??
    /\((file:\/\/[^)]+)\)|at (file:\/\/\S+)/
      .exec(error.stack ?? '')
      ?.slice(1)
      .find(Boolean)
  return place ? ` (${place.startsWith('file:') ? place.replace(/^file:\/\//, '') : place})` : ''
}
