import type { JSX } from 'preact'
import { Answer } from '../parts/answer.tsx'

export default function Limits(): JSX.Element {
  return (
    <div class="page">
      <Answer parts={[{ text: 'This page is not made yet.' }]} />
    </div>
  )
}
