/** The one live connection of this tab. */
import { effect, signal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import type { StreamEvent } from '../api/events.ts'
import { Live, type LiveState, type Topics } from '../api/live.ts'
import { isPast } from './place.ts'
import { client, closed, me } from './session.ts'

export const liveState = signal<LiveState>('off')
const isHidden = signal(document.hidden)
document.addEventListener('visibilitychange', () => {
  isHidden.value = document.hidden
})

const live = new Live({
  open: (query, leave) => client.stream(query, leave),
  onState: (state) => {
    liveState.value = state
  },
})
effect(() => live.want(me.value !== undefined && closed.value === undefined && !isPast.value && !isHidden.value))

/** Calls `on` for each event of these topics, while the component is there. */
export function useLive(topics: Topics, on: (event: StreamEvent) => void): void {
  const latest = useRef(on)
  latest.current = on
  useEffect(() => live.listen(topics, (event) => latest.current(event)), [JSON.stringify(topics)])
}
