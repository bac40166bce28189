/** One asset of a run: its attempts, its error, and why it is as it is. */
import type { JSX } from 'preact'
import * as reads from '../api/reads.ts'
import type { RunPage, Span } from '../api/types.ts'
import { duration, moment } from '../format.ts'
import { Facts, Time } from '../parts/card.tsx'
import { Drawer } from '../parts/drawer.tsx'
import { ErrorChain } from '../parts/error.tsx'
import { State } from '../parts/glyph.tsx'
import { plain } from '../plain.ts'
import { href } from '../state/place.ts'
import { useRead } from '../state/read.ts'
import { assetState } from '../words.ts'

export function AssetDrawer(props: {
  page: RunPage
  asset: string
  now: number
  onClose: () => void
}): JSX.Element | null {
  const { page, asset, now, onClose } = props
  const { run, timeline, gates } = page
  const about = run.assets[asset]
  const why = useRead(reads.why({ run: run.id, asset }), { on: { run: [run.id] }, restMs: 2000 }).data
  const spans = timeline.filter((span) => span.asset === asset)
  const gate = gates.find((one) => one.asset === asset && one.status === 'waiting')
  if (!about) return null
  return (
    <Drawer title={<code>{asset}</code>} label={`Asset ${asset}`} onClose={onClose}>
      <section>
        <p class="why">
          {why ? plain(why.verdict.message, now) : about.waitingFor.map((text) => `Waits for ${plain(text, now)}. `)}
        </p>
        <Facts
          of={[
            [
              'State',
              <span class="line">
                <State state={assetState(about)} label="" />
                {about.status}
              </span>,
            ],
            ['Attempt', String(about.attempt)],
            ...(about.reused
              ? [
                  [
                    'Reused',
                    about.reused.run ? (
                      <a class="link" href={href(['runs', about.reused.run])}>
                        from another run
                      </a>
                    ) : (
                      about.reused.why
                    ),
                  ] as const,
                ]
              : []),
            ...(about.waitsForRun
              ? [
                  [
                    'Waits for',
                    <a class="link" href={href(['runs', about.waitsForRun])}>
                      <code>{about.waitsForRun}</code>
                    </a>,
                  ] as const,
                ]
              : []),
            [
              'Of',
              <a class="link" href={href(['assets', run.pipeline, asset])}>
                {run.pipeline}/{asset}
              </a>,
            ],
          ]}
        />
        {gate ? (
          <a class="button" href={href(['inbox', gate.id])}>
            <State state="gate" label="" />
            Open its gate
          </a>
        ) : null}
        <a class="button small" href={href(['runs', run.id], { logs: asset })}>
          Its logs
        </a>
      </section>
      {about.error ? (
        <section>
          <h3>Error</h3>
          <ErrorChain error={about.error} />
        </section>
      ) : null}
      <section>
        <h3>{spans.length === 0 ? 'Nothing of it has begun.' : 'What happened'}</h3>
        <ul class="attempts">
          {spans.map((span) => (
            <Attempt
              span={span}
              now={now}
              isOpen={about.status === 'running' || about.status === 'scattering' || span.kind === 'gate'}
            />
          ))}
        </ul>
      </section>
    </Drawer>
  )
}

function Attempt({ span, now, isOpen }: { span: Span; now: number; isOpen: boolean }): JSX.Element {
  const isBad = span.outcome === 'error' || span.outcome === 'failed' || span.outcome === 'lost'
  const name = span.kind === 'attempt' ? `${span.phase ?? 'execute'}, attempt ${span.attempt ?? 1}` : span.kind
  const took =
    span.to === undefined
      ? isOpen
        ? duration(now - Date.parse(span.from))
        : ''
      : duration(Date.parse(span.to) - Date.parse(span.from))
  return (
    <li>
      <State
        state={isBad ? 'fail' : span.to === undefined ? (span.kind === 'gate' ? 'gate' : 'run') : 'done'}
        label=""
      />
      <span class="cut">
        {name}
        {span.outcome === undefined ? '' : `: ${span.outcome}`}
      </span>
      <span class="dimmed">{took}</span>
      <span class="second cut">
        <Time of={span.from} text={moment(span.from, now, true)} />{' '}
        {span.worker === undefined ? '' : `on ${span.worker}`}
      </span>
    </li>
  )
}
