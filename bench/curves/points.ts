/** The points that are measured (`points.json`). Kept, so that a long campaign goes on. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Values } from './works.ts'

export interface Point {
  readonly x: number
  readonly values: Values
  /** The day, as 2026-11-28. */
  readonly date: string
  readonly machine: string
}

export type Points = Readonly<Record<string, readonly Point[]>>

export function readPoints(file: string): Points {
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {}
}

/** In place of the one that there is at its x. */
export function withPoint(points: Points, curve: string, point: Point): Points {
  const others = (points[curve] ?? []).filter(({ x }) => x !== point.x)
  return { ...points, [curve]: [...others, point].sort((a, b) => a.x - b.x) }
}

export function writePoints(file: string, points: Points): void {
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, `${JSON.stringify(points, undefined, 2)}\n`)
}
