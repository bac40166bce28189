/** Layouts, by the hash of their graph. */
import { useEffect, useState } from 'preact/hooks'
import { type GraphInput, graphHash, type Layout } from '../graph.ts'

const KEPT = 8
const known = new Map<string, Layout>()
const asked = new Set<string>()
const listeners = new Set<() => void>()
let worker: Worker | undefined

function ask(hash: string, input: GraphInput): void {
  if (asked.has(hash)) return
  asked.add(hash)
  worker ??= begun()
  worker.postMessage({ hash, input })
}

function begun(): Worker {
  const made = new Worker(new URL(LAYOUT_WORKER, document.baseURI))
  made.addEventListener('message', ({ data }: MessageEvent<{ hash: string; layout: Layout }>) => {
    asked.delete(data.hash)
    known.set(data.hash, data.layout)
    for (const hash of [...known.keys()].slice(0, -KEPT)) known.delete(hash)
    for (const listener of listeners) listener()
  })
  return made
}

/** The layout of a graph. Until it is there, the one before. */
export function useLayout(input: GraphInput): Layout | undefined {
  const hash = graphHash(input)
  const [shown, setShown] = useState<Layout | undefined>(known.get(hash))
  useEffect(() => {
    const look = (): void => {
      const layout = known.get(hash)
      if (layout) setShown(layout)
    }
    listeners.add(look)
    if (known.has(hash)) look()
    else if (input.lanes.length > 0) ask(hash, input)
    return () => {
      listeners.delete(look)
    }
  }, [hash])
  return known.get(hash) ?? shown
}
