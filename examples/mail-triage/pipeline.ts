/**
 * Mail triage: learn from one half of the mails what spam looks like, then judge the other half,
 * each mail on its own.
 *
 *     corpus ──▶ split ──▶ model ──▶ verdicts ──▶ report
 *
 * Values are small (ids, words with weights, counts): they are what the log keeps. The texts come
 * from the dataset, by id, where they are needed.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { asset, pipeline } from '../../src/index.ts'
import { isSpam, type Model, scorer, tellingWords, train } from './bayes.ts'
import { listMails, mailById, splitMails, tokenize } from './corpus.ts'
import { judged, type Report, scores, tally, type Verdict } from './report.ts'

export const corpus = asset('corpus', { execute: () => listMails() })

export const split = asset('split', {
  dependsOn: [corpus],
  execute: (_ctx, { corpus }) => splitMails(corpus),
})

export const model = asset('model', {
  dependsOn: [split],
  // Only ids of `split.train` are looked up here: the model never sees a mail that it will be
  // tested on.
  execute: (_ctx, { split }): Model =>
    train(split.train.map(mailById).map(({ label, text }) => ({ label, tokens: tokenize(text) }))),
})

export const verdicts = asset('verdicts', {
  dependsOn: [split, model],
  scatter: ({ split }) => split.test.map((mail) => ({ mail })),
  retry: { maxAttempts: 3 },
  execute: async (ctx, { model }): Promise<Verdict> => {
    if (pauseMs > 0) await sleep(pauseMs, undefined, { signal: ctx.signal })
    const { label, text } = mailById(ctx.scatterKey.mail)
    const score = scorerOf(model)
    const startedAt = performance.now()
    const odds = score(tokenize(text))
    return { label, spam: isSpam(odds), score: odds, ms: Math.round((performance.now() - startedAt) * 100) / 100 }
  },
  gather: (results) => tally(results),
})

export const report = asset('report', {
  dependsOn: [model, verdicts],
  execute: (_ctx, { model, verdicts }): Report => ({
    ...verdicts,
    ...scores(verdicts.matrix),
    judged: judged(verdicts.matrix),
    trainedOn: model.trainedOn,
    telling: tellingWords(model, 6),
  }),
})

export const triage = pipeline('mail_triage', [corpus, split, model, verdicts, report])

let pauseMs = 0

/**
 * Makes every verdict take this much longer, so that there is time to watch, and to pull the plug.
 * Lasts as long as the process.
 */
export function slowDown(ms: number): void {
  pauseMs = ms
}

/** A model is indexed once, not once a mail: the instances of a lease share their dependencies. */
const scorers = new WeakMap<Model, ReturnType<typeof scorer>>()

function scorerOf(model: Model): ReturnType<typeof scorer> {
  const known = scorers.get(model)
  if (known) return known
  const made = scorer(model)
  scorers.set(model, made)
  return made
}
