/**
 * The code that a worker has: assets of its pipelines, by shape (streams/shape.ts). Two versions of
 * a pipeline may be there side by side.
 */
import { InvalidError } from '../../../streams/errors.ts'
import type { Task } from '../../../streams/tasks.ts'
import type { AnyAsset } from '../../define/asset-type.ts'
import type { Pipeline } from '../../define/pipeline.ts'

export interface CodeName {
  readonly pipeline: string
  readonly asset: string
  readonly shape: string
}

export class Code {
  readonly #assets = new Map<string, AnyAsset>()
  readonly #shapes = new Map<string, Set<string>>()
  readonly #versions = new Map<string, Set<string>>()

  constructor(pipelines: readonly Pipeline[]) {
    for (const { name: pipeline, assets, spec } of pipelines) {
      add(this.#versions, pipeline, spec.version)
      for (const member of assets) {
        const { shape } = member.definition.spec
        this.#assets.set(keyOf({ pipeline, asset: member.name, shape }), member)
        add(this.#shapes, `${pipeline}/${member.name}`, shape)
      }
    }
  }

  /** The code for a task; undefined where it was planned for another one. */
  of({ pipeline, asset, shape }: Pick<Task, 'pipeline' | 'asset' | 'shape'>): AnyAsset | undefined {
    return this.#assets.get(keyOf({ pipeline, asset, shape }))
  }

  has(name: CodeName): boolean {
    return this.#assets.has(keyOf(name))
  }

  shapesOf(pipeline: string, asset: string): string[] {
    return [...(this.#shapes.get(`${pipeline}/${asset}`) ?? [])]
  }

  versionsOf(pipeline: string): string[] {
    return [...(this.#versions.get(pipeline) ?? [])]
  }

  get pipelines(): string[] {
    return [...this.#versions.keys()]
  }
}

export interface ServedQueue {
  readonly pipeline: string
  readonly queue: string
  readonly priority: number
}

/**
 * Queues that the pipelines' assets name, or those of them that are in `only`; the most urgent
 * first.
 */
export function servedQueues(pipelines: readonly Pipeline[], only: readonly string[] | undefined): ServedQueue[] {
  if (only?.length === 0) throw new InvalidError('worker: queues is empty: name one at least, or leave it out for all')
  const served = new Map<string, ServedQueue>()
  for (const { name: pipeline, assets } of pipelines) {
    for (const { definition } of assets) {
      const { queue, priority, scatter } = definition.spec
      const instances = { pipeline, queue: scatter?.queue ?? queue, priority: scatter?.priority ?? priority }
      for (const at of [{ pipeline, queue, priority }, instances])
        if (!only || only.includes(at.queue)) served.set(`${pipeline} ${at.queue} ${at.priority}`, at)
    }
  }
  if (served.size === 0)
    throw new InvalidError(`worker: no asset of its pipelines is on queue ${only?.join(', ') ?? ''}`)
  return [...served.values()].toSorted((a, b) => a.priority - b.priority)
}

function keyOf({ pipeline, asset, shape }: CodeName): string {
  return `${pipeline}/${asset}/${shape}`
}

function add(map: Map<string, Set<string>>, key: string, value: string): void {
  map.set(key, (map.get(key) ?? new Set()).add(value))
}
