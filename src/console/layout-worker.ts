/** Lays graphs out in a thread of its own, so that no page waits for it. */
import type { GraphInput } from './graph.ts'
import { layOut } from './layout.ts'

export interface LayoutAsked {
  readonly hash: string
  readonly input: GraphInput
}

addEventListener('message', ({ data }: MessageEvent<LayoutAsked>) => {
  postMessage({ hash: data.hash, layout: layOut(data.input) })
})
