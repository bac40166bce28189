/** How it will end, and what holds it up: the threshold, the rate, and why it waits. */
import type { JSX } from 'preact'
import type { Scatter } from '../api/types.ts'
import { clock, count, duration, percent, rate } from '../format.ts'
import { Sentence } from '../parts/answer.tsx'
import { Bar, Card, Empty } from '../parts/card.tsx'
import { AreaChart } from '../parts/chart.tsx'
import { href, isPast } from '../state/place.ts'
import { isLimit, reasonsOf } from './reasons.ts'
import { allowedOf, lostToLimits, meterOf, type Seen, thresholdText, wholeOf } from './said.ts'

const POINTS_MAX = 120

export function Threshold({ scatter, seen }: { scatter: Scatter; seen: readonly Seen[] }): JSX.Element {
  const { failed, perSecond, status } = scatter
  const whole = wholeOf(scatter)
  const allowed = allowedOf(scatter)
  const meter = meterOf(scatter)
  const limit = reasonsOf(scatter, href).find((reason) => reason.perSecond !== undefined)?.perSecond
  const first = seen[0]
  const of = (share: number): string => `${(share * 100).toFixed(2)}%`
  return (
    <Card
      title="Threshold"
      side={meter && allowed !== undefined ? `fails beyond ${percent(allowed, whole)}` : undefined}
    >
      <div class="pad">
        <div class="line threshold-now">
          <span class="big">{percent(failed, whole, 2)}</span>
          <span class="small faint">failed, {thresholdText(scatter)}</span>
        </div>
        {meter && allowed !== undefined ? (
          <>
            <div class="meter" aria-hidden="true">
              <i class="meter-failed" style={{ width: of(meter.failed) }} />
              <i class="meter-expected" style={{ left: of(meter.failed), width: of(meter.expected - meter.failed) }} />
              <i class="meter-mark" style={{ left: of(meter.mark) }} />
              <span class="meter-text" style={{ left: of(meter.mark) }}>
                {count(allowed)}
              </span>
            </div>
            <p class="small faint">{meter.text}</p>
          </>
        ) : null}
        <div class="line small faint rate-head">
          <span>
            {status !== 'open'
              ? 'Rate on the whole'
              : first && seen.length > 1
                ? `Rate since ${clock(first.at)}`
                : 'Rate'}
          </span>
          <span class="rate-now">
            {rate(perSecond)} a second{limit === undefined ? '' : `, limit ${rate(limit)}`}
          </span>
        </div>
        {status === 'open' && !isPast.value && seen.length > 1 ? (
          <AreaChart
            values={seen.slice(-POINTS_MAX).map((one) => one.perSecond)}
            {...(limit === undefined ? {} : { mark: limit })}
          />
        ) : null}
      </div>
    </Card>
  )
}

export function Waits({ scatter, seen }: { scatter: Scatter; seen: readonly Seen[] }): JSX.Element {
  const reasons = reasonsOf(scatter, href)
  const { pending, status, longest } = scatter
  const waiting = Math.max(1, pending)
  const { lostMs, seenMs } = lostToLimits(seen)
  return (
    <Card title="Why it waits" side={status === 'open' ? `${count(pending)} not ended` : undefined}>
      {status !== 'open' ? <Empty>It has ended: nothing waits.</Empty> : null}
      {status === 'open' && isPast.value ? <Empty>What it waited for then is not kept.</Empty> : null}
      {status === 'open' && !isPast.value && reasons.length === 0 ? <Empty>Nothing holds it up.</Empty> : null}
      {reasons.length === 0 ? null : (
        <div class="pad waits">
          {reasons.map((reason) => (
            <div class="wait">
              <span>
                <Sentence parts={reason.name} />
              </span>
              <span class="number dimmed">{reason.count === undefined ? '' : count(reason.count)}</span>
              {reason.count === undefined ? null : (
                <Bar parts={[{ state: reason.state, share: reason.count / waiting }]} />
              )}
            </div>
          ))}
          {seenMs > 0 && (lostMs > 0 || reasons.some(isLimit)) ? (
            <p class="small faint">
              Limits held it up for {duration(lostMs)} of the {duration(seenMs)} that this page has seen.
            </p>
          ) : null}
          <Longest longest={longest} />
        </div>
      )}
    </Card>
  )
}

function Longest({ longest }: Pick<Scatter, 'longest'>): JSX.Element | null {
  const [first] = longest
  if (!first) return null
  const which = first.to - first.from <= 1 ? `Instance ${count(first.from)}` : `Instances from ${count(first.from)}`
  return (
    <p class="small faint">
      {which} {first.to - first.from <= 1 ? 'has' : 'have'} been out longest, since {clock(first.since)}
      {first.worker === undefined ? '' : `, on ${first.worker}`}.
    </p>
  )
}
