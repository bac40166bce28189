/** Pages behind the first one of a list, as far as somebody has looked. */
import { useEffect, useRef, useState } from 'preact/hooks'

interface Pages<T> {
  readonly of: string
  readonly rows: readonly T[]
  readonly next: string | undefined
}

export interface Older<T> {
  /** All pages that were read. */
  readonly rows: readonly T[]
  /** Behind them. */
  readonly next: string | undefined
  readonly read: (cursor: string) => Promise<void>
}

/** `place`: what the list is of. Another one begins anew. */
export function useOlder<T>(
  place: string,
  page: (cursor: string) => Promise<{ readonly rows: readonly T[]; readonly next: string | undefined }>,
): Older<T> {
  const [pages, setPages] = useState<Pages<T>>({ of: place, rows: [], next: undefined })
  const isBusy = useRef(false)
  const latest = useRef(place)
  latest.current = place
  useEffect(() => setPages({ of: place, rows: [], next: undefined }), [place])
  const isOurs = pages.of === place
  return {
    rows: isOurs ? pages.rows : [],
    next: isOurs ? pages.next : undefined,
    async read(cursor) {
      if (isBusy.current) return
      isBusy.current = true
      try {
        const { rows, next } = await page(cursor)
        if (latest.current !== place) return
        setPages((before) => ({ of: place, rows: [...(before.of === place ? before.rows : []), ...rows], next }))
      } catch {
        // The end comes into view again.
      } finally {
        isBusy.current = false
      }
    },
  }
}
