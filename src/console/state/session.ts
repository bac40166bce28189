/** Who looks: the key of this tab, and what it may do. */
import { computed, signal } from '@preact/signals'
import { Client, Problem } from '../api/client.ts'
import * as reads from '../api/reads.ts'
import type { Me } from '../api/types.ts'

const KEY = 'flowstone.key'

/** Only this tab has it, and only while it is open. */
const key = signal<string | undefined>(sessionStorage.getItem(KEY) ?? undefined)
export const me = signal<Me | undefined>(undefined)
/** Why there is nothing to see: a key is needed, or nobody answers. */
export const closed = signal<Problem | undefined>(undefined)
/** Of the server's clock to ours. */
export const skewMs = signal(0)

export const client = new Client({
  key: () => key.value,
  onRefused: () => {
    closed.value = new Problem(401, 'unauthorized', 'This key is not accepted any more.')
  },
})

export type Scope = 'read' | 'start' | 'operate' | 'administer'
export const may = (scope: Scope): boolean => me.value?.may.includes(scope) === true
export const seesAll = computed(() => me.value?.allAssets === true)
export const hasKey = computed(() => key.value !== undefined)
export const role = computed(() =>
  may('administer') ? 'admin' : may('operate') ? 'operator' : may('start') ? 'starter' : 'viewer',
)

/** Asks who we are. Throws nothing: `closed` says why it did not work. */
export async function begin(): Promise<void> {
  try {
    const answer = await client.get(reads.me())
    skewMs.value = new Date(answer.now).getTime() - Date.now()
    me.value = answer
    closed.value = undefined
  } catch (error) {
    closed.value = error instanceof Problem ? error : new Problem(0, 'offline', String(error))
  }
}

export async function signIn(text: string): Promise<void> {
  key.value = text.trim()
  await begin()
  if (me.value && !closed.value) sessionStorage.setItem(KEY, key.value)
}

export function signOut(): void {
  sessionStorage.removeItem(KEY)
  key.value = undefined
  me.value = undefined
  void begin()
}
