/**
 * Metadata for people's eyes. Whatever it holds, it stays text in a cell: escaped, bounded in depth
 * and size, with nothing in it that can be followed.
 */

import { html } from 'hono/html'
import { cut } from '../../../streams/text.ts'

type Markup = ReturnType<typeof html>

const DEPTH_MAX = 5
const ENTRIES_MAX = 100
const TEXT_MAX = 4000
const CELLS_MAX = 1000

/** A table of names and values; lists and tables nest. */
export function metadataTable(value: unknown): Markup {
  return render(value, 0, { left: CELLS_MAX })
}

function render(value: unknown, depth: number, cells: { left: number }): Markup {
  cells.left -= 1
  if (cells.left < 0) return html`<span class="more">…</span>`
  if (value instanceof Uint8Array) return html`<span class="more">${value.length} bytes</span>`
  if (value instanceof Date) return html`${text(Number.isNaN(value.getTime()) ? 'no date' : value.toISOString())}`
  if (typeof value !== 'object' || value === null) return scalar(value)
  const entries = Object.entries(value)
  const list = Array.isArray(value)
  if (entries.length === 0) return html`<span class="more">${list ? 'empty list' : 'empty'}</span>`
  if (depth >= DEPTH_MAX) return scalar(clipped(JSON.stringify(value, plain) ?? ''))
  const shown = entries.slice(0, ENTRIES_MAX)
  const more = entries.length - shown.length
  const rest = more > 0 ? html`<p class="more">and ${more} more</p>` : ''
  if (list) return html`<ol>${shown.map(([, item]) => html`<li>${render(item, depth + 1, cells)}</li>`)}</ol>${rest}`
  return html`<table><tbody>${shown.map(
    ([name, item]) =>
      html`<tr><th scope="row"><bdi>${text(clipped(name))}</bdi></th><td>${render(item, depth + 1, cells)}</td></tr>`,
  )}</tbody></table>${rest}`
}

/** What JSON has no word for. */
function plain(_name: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value
}

function scalar(value: unknown): Markup {
  switch (typeof value) {
    case 'string':
      return value === ''
        ? html`<span class="more">empty</span>`
        : html`<bdi class="text">${text(clipped(value))}</bdi>`
    case 'boolean':
      return html`${value ? 'yes' : 'no'}`
    case 'number':
    case 'bigint':
      return html`${String(value)}`
    default:
      return html`<span class="more">none</span>`
  }
}

function clipped(value: string): string {
  return cut(value, TEXT_MAX, '…')
}

// Marks that turn the direction of what follows, and controls that are not seen: they can make a
// text look like another one.
const UNSEEN = /(?![\n\t\u200c\u200d])[\p{Cc}\p{Cf}\u2028\u2029]/gu

/** With what is not seen made to be seen. Escaping is left to the template. */
export function text(value: string): string {
  return value
    .replaceAll('\r\n', '\n')
    .replaceAll(UNSEEN, (unseen) => `‹U+${(unseen.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}›`)
}
