/**
 * One by one what comes in lists: what is there already costs its reader one turn, and not the
 * several of a generator.
 */
export function flat<T>(batches: AsyncGenerator<T[]>): AsyncGenerator<T> {
  let batch: readonly T[] = []
  let at = 0
  const more = async (): Promise<IteratorResult<T, undefined>> => {
    for (;;) {
      const next = await batches.next()
      if (next.done) return { done: true, value: undefined }
      batch = next.value
      at = 0
      const first = batch[at++]
      if (first !== undefined) return { done: false, value: first }
    }
  }
  // Whoever asks for several at once gets them one after the other.
  let asking: Promise<unknown> | undefined
  const ask = (): Promise<IteratorResult<T, undefined>> => {
    const asked = (asking ?? Promise.resolve()).then(() => {
      const there = batch[at]
      if (there === undefined) return more()
      at += 1
      return { done: false as const, value: there }
    })
    const settled = asked
      .catch(() => undefined)
      .finally(() => {
        if (asking === settled) asking = undefined
      })
    asking = settled
    return asked
  }
  return {
    // What is there is given by a function without closures: there is a call for each result.
    next: () => {
      const value = asking ? undefined : batch[at]
      if (value === undefined) return ask()
      at += 1
      return Promise.resolve({ done: false, value })
    },
    return: async (value) => {
      batch = []
      await batches.return(undefined)
      return { done: true, value: await value }
    },
    throw: async (error) => {
      batch = []
      await batches.throw(error)
      return { done: true, value: undefined }
    },
    [Symbol.asyncIterator]() {
      return this
    },
    async [Symbol.asyncDispose]() {
      await this.return(undefined)
    },
  }
}
