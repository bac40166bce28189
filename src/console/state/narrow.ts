/** Whether the page is on a phone: as narrow as the sheets say. */
import { signal } from '@preact/signals'

const media = matchMedia('(max-width: 760px)')
export const isNarrow = signal(media.matches)
media.addEventListener('change', () => {
  isNarrow.value = media.matches
})
