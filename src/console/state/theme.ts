/** Light or dark: as the system has it, until somebody chooses. */
import { signal } from '@preact/signals'

const STORED = 'flowstone.theme'
export type Theme = 'light' | 'dark'
const system = matchMedia('(prefers-color-scheme: dark)')

function stored(): Theme | undefined {
  try {
    const value = localStorage.getItem(STORED)
    return value === 'light' || value === 'dark' ? value : undefined
  } catch {
    return undefined
  }
}

const chosen = signal<Theme | undefined>(stored())
/** Changes when colours do: what is drawn on a canvas is drawn anew. */
export const theme = signal<Theme>('light')

function apply(): void {
  theme.value = chosen.value ?? (system.matches ? 'dark' : 'light')
  document.documentElement.dataset.theme = theme.value
  painted.clear()
}

export function flipTheme(): void {
  chosen.value = theme.value === 'dark' ? 'light' : 'dark'
  try {
    localStorage.setItem(STORED, chosen.value)
  } catch {
    // It lasts as long as the tab.
  }
  apply()
}

const painted = new Map<string, string>()

/** A colour token, as a canvas takes it: `paint('--map-fail')`. */
export function paint(token: string): string {
  const known = painted.get(token)
  if (known !== undefined) return known
  const probe = document.createElement('i')
  probe.style.color = `var(${token})`
  document.body.append(probe)
  const colour = getComputedStyle(probe).color
  probe.remove()
  painted.set(token, colour)
  return colour
}

system.addEventListener('change', apply)
apply()
