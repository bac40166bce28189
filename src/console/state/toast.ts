/** One line for what happened, where no page shows it. */
import { signal } from '@preact/signals'

const SHOWN_MS = 4000
export const toast = signal('')
let timer: ReturnType<typeof setTimeout> | undefined

export function say(text: string): void {
  toast.value = text
  clearTimeout(timer)
  timer = setTimeout(() => {
    toast.value = ''
  }, SHOWN_MS)
}
