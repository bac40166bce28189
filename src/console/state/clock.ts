/** The time that pages count from: the server's clock, or the moment that is shown. */
import { computed, signal } from '@preact/signals'
import { at } from './place.ts'
import { skewMs } from './session.ts'

const ticked = signal(Date.now())
/** Nothing is drawn in a tab that nobody sees. */
setInterval(() => {
  if (!document.hidden) ticked.value = Date.now()
}, 1000)
document.addEventListener('visibilitychange', () => {
  ticked.value = Date.now()
})

/** The server's clock now, changed once a second. */
export const present = computed(() => ticked.value + skewMs.value)
/** The moment that the page shows. */
export const shown = computed(() => at.value?.getTime() ?? present.value)
