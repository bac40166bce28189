/** The code that a worker has: assets of its pipelines, by shape (streams/shape.ts). Two versions of a pipeline may be there side by side. */
import type { Task } from '../../streams/tasks.ts'
import type { AnyAsset } from '../define/asset.ts'
import type { Pipeline } from '../define/pipeline.ts'

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

function keyOf({ pipeline, asset, shape }: CodeName): string {
  return `${pipeline}/${asset}/${shape}`
}

function add(map: Map<string, Set<string>>, key: string, value: string): void {
  map.set(key, (map.get(key) ?? new Set()).add(value))
}
