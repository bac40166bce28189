import type { RateOption } from '../../../src/index.ts'
export interface LimitsWork {
  readonly kind: 'take' | 'check' | 'slots'
  readonly bucket: string
  readonly rate?: RateOption
  readonly max?: number
  readonly weight?: number
  readonly leaseMs?: number
  /** Loops side by side. */
  readonly callers: number
  /** How far the clock of this process is off. */
  readonly skewMs?: number
}
