import { beforeAll, describe, expect, it } from 'vitest'
import { type Example, isSpam, type Model, scorer, tellingWords, train } from '../examples/mail-triage/bayes.ts'
import {
  fingerprint,
  listMails,
  type MailEntry,
  mailById,
  type Split,
  splitMails,
  tokenize,
} from '../examples/mail-triage/corpus.ts'
import { progressLine } from '../examples/mail-triage/progress.ts'
import {
  columns,
  judged,
  type Matrix,
  render,
  scores,
  tally,
  type VerdictResult,
} from '../examples/mail-triage/report.ts'

describe('tokenize', () => {
  it('takes the words of subject and body in lower case and leaves the other headers out', () => {
    const mail = "From: zzzz@example.com\nSubject: Re: Hello\n World\nX-Mailer: Pine\n\nMake $$$ FAST, don't stop!"
    expect(tokenize(mail)).toEqual([
      'subject:re',
      'subject:hello',
      'subject:world',
      'make',
      '$$$',
      'fast',
      "don't",
      'stop!',
    ])
  })

  it('drops single characters, numbers and what is longer than a word', () => {
    expect(tokenize('Subject: a\n\nI b2b 100 supercalifragilisticexpialidocious x')).toEqual(['b2b'])
  })

  it('sees through tags, comments inside words, quoted-printable and base64', () => {
    expect(tokenize('A: b\n\n<b class="x">v<!-- hm -->iagra</b>')).toEqual(['viagra'])
    expect(tokenize('A: b\n\nfree=20mo=\nney')).toEqual(['free', 'money'])
    const hidden = Buffer.from('Dear friend, this is a very good offer for you and for nobody else.').toString('base64')
    expect(tokenize(`A: b\n\n${hidden.slice(0, 76)}\n${hidden.slice(76)}\n`).slice(0, 3)).toEqual([
      'dear',
      'friend',
      'this',
    ])
  })

  it('reads a mail with Windows line ends, and one without a body', () => {
    expect(tokenize('Subject: hi\r\nTo: x\r\n\r\nfree money')).toEqual(['subject:hi', 'free', 'money'])
    expect(tokenize('Subject: hi')).toEqual(['subject:hi'])
  })

  it('takes time that grows with the mail and not with its square when a mail is full of open tags', () => {
    const startedAt = performance.now()
    tokenize(`A: b\n\n${'<!-- <'.repeat(50_000)}`)
    expect(performance.now() - startedAt).toBeLessThan(5_000)
  })
})

// Three words of spam, two of ham, three distinct: V = 3.
const tiny: Example[] = [
  { label: 'spam', tokens: ['free', 'free', 'money'] },
  { label: 'ham', tokens: ['hello', 'money'] },
]

describe('train', () => {
  it('gives each word the logarithm of its smoothed odds', () => {
    const model = train(tiny, { minMails: 1 })
    expect(new Map(model.weights)).toEqual(
      new Map([
        ['free', 0.9163], // ln( (2+1)/(3+3) : (0+1)/(2+3) ) = ln 2.5
        ['hello', -0.8755], // ln( (0+1)/6 : (1+1)/5 ) = ln 5/12
        ['money', -0.1823], // ln( (1+1)/6 : (1+1)/5 ) = ln 5/6
      ]),
    )
    expect(model.prior).toBe(0)
    expect(model.trainedOn).toEqual({ spam: 1, ham: 1 })
  })

  it('takes the prior from the number of mails', () => {
    // ln 1/3
    expect(train([...tiny, { label: 'ham', tokens: [] }, { label: 'ham', tokens: [] }]).prior).toBe(-1.0986)
  })

  it('keeps the most telling words: strong, and in many mails', () => {
    expect(train(tiny, { minMails: 1, vocabulary: 2 }).weights.map(([token]) => token)).toEqual(['free', 'hello'])
    expect(train(tiny, { minMails: 2 }).weights.map(([token]) => token)).toEqual(['money'])
  })

  it('learns the same from the same mails in another order', () => {
    expect(train([...tiny].reverse(), { minMails: 1 })).toEqual(train(tiny, { minMails: 1 }))
  })

  it('refuses to learn from one side only', () => {
    expect(() => train(tiny.slice(0, 1))).toThrow('1 spam and 0 ham')
  })
})

describe('scorer', () => {
  const model = train(tiny, { minMails: 1 })

  it('adds the prior and the weights of all words, repeated ones too', () => {
    expect(scorer(model)(['free', 'free', 'money'])).toBe(1.6503) // 2 × 0.9163 − 0.1823
    expect(scorer({ ...model, prior: -1 })(['hello'])).toBe(-1.8755)
  })

  it('takes nothing from words it does not know, also when objects have them', () => {
    expect(scorer(model)(['constructor', '__proto__', 'never'])).toBe(0)
  })

  it('judges only what is above even odds as spam', () => {
    expect([isSpam(0.0001), isSpam(0), isSpam(-1)]).toEqual([true, false, false])
  })

  it('names the words that tell most for each side', () => {
    expect(tellingWords(model, 1)).toEqual({ spam: ['free'], ham: ['hello'] })
  })
})

describe('splitMails', () => {
  const entry = (id: string, body: string): MailEntry => ({
    id,
    label: 'ham',
    fingerprint: fingerprint(`A: b\n\n${body}`),
  })
  const entries = Array.from({ length: 400 }, (_, i) => entry(`ham/${i}`, `mail number ${i}`))

  it('puts each mail on one side, and about half on each', () => {
    const { train, test } = splitMails(entries)
    expect([...train, ...test].sort()).toEqual(entries.map(({ id }) => id).sort())
    expect(train.length).toBeGreaterThan(150)
    expect(test.length).toBeGreaterThan(150)
  })

  it('puts a mail on the same side whatever else is in the list', () => {
    const whole = new Set(splitMails(entries).train)
    for (const each of entries) expect(splitMails([each]).train.length === 1).toBe(whole.has(each.id))
  })

  it('keeps copies of a mail together, with other headers and other white space too', () => {
    const copy = fingerprint('To: somebody else\r\n\r\nMAIL  number\r\n7 ')
    expect(copy).toBe(entries[7]?.fingerprint)
  })
})

describe('the report', () => {
  const matrix: Matrix = { truePositive: 3, falsePositive: 1, falseNegative: 2, trueNegative: 4 }

  it('scores a confusion matrix', () => {
    expect(judged(matrix)).toBe(10)
    expect(scores(matrix)).toEqual({ accuracy: 0.7, precision: 0.75, recall: 0.6, f1: 6 / 9 })
  })

  it('has no score where there is nothing to divide by', () => {
    const nothing: Matrix = { truePositive: 0, falsePositive: 0, falseNegative: 0, trueNegative: 0 }
    expect(scores(nothing)).toEqual({ accuracy: null, precision: null, recall: null, f1: null })
    expect(scores({ ...nothing, trueNegative: 2 })).toEqual({ accuracy: 1, precision: null, recall: null, f1: null })
  })

  it('tallies verdicts as they come, counts failures apart and keeps the slowest', async () => {
    const ok = (mail: string, label: 'spam' | 'ham', spam: boolean, ms: number): VerdictResult => ({
      key: { mail },
      status: 'ok',
      value: { label, spam, score: spam ? 1 : -1, ms },
    })
    const results: VerdictResult[] = [
      ok('a', 'spam', true, 1),
      ok('b', 'spam', false, 9),
      { key: { mail: 'c' }, status: 'failed' },
      ok('d', 'ham', true, 4),
      ok('e', 'ham', false, 2),
      ok('f', 'ham', false, 9),
    ]
    expect(await tally(results, 2)).toEqual({
      matrix: { truePositive: 1, falsePositive: 1, falseNegative: 1, trueNegative: 2 },
      failed: 1,
      totalMs: 25,
      slowest: [
        { mail: 'b', ms: 9 },
        { mail: 'f', ms: 9 },
      ],
    })
  })

  it('aligns columns', () => {
    expect(
      columns([
        ['a', '1', ' x'],
        ['bcd', '1,000', ' yz'],
      ]),
    ).toEqual(['a        1 x', 'bcd  1,000 yz'])
  })

  it('is a text that people can read', () => {
    const text = render({
      ...scores(matrix),
      matrix,
      judged: 10,
      failed: 1,
      totalMs: 20,
      slowest: [{ mail: 'spam-1/00001', ms: 12.34 }],
      trainedOn: { spam: 400, ham: 800 },
      telling: { spam: ['free'], ham: ['wrote'] },
    })
    expect(text.split('\n')).toEqual([
      'Judged 10 mails by a model that had read 1,200 others (400 of them spam).',
      '1 without a verdict.',
      '',
      '         judged spam  judged ham',
      'is spam            3           2',
      'is ham             1           4',
      '',
      'accuracy   70.0 %  of all verdicts are right',
      'precision  75.0 %  of what was judged spam is spam',
      'recall     60.0 %  of the spam was found',
      'F1         66.7 %  precision and recall in one number',
      '',
      'most telling for spam   free',
      'most telling for ham    wrote',
      '',
      'slowest mails    ms',
      'spam-1/00001   12.3',
      'mean of all     2.0',
    ])
  })
})

describe('progressLine', () => {
  it('shows assets and a bar for each scatter', () => {
    const line = progressLine({
      run: { assets: { corpus: { status: 'materialized' }, verdicts: { status: 'running' } } },
      scatters: [{ asset: 'verdicts', total: 3_000, succeeded: 1_490, failed: 10 }],
    })
    expect(line).toBe('1 of 2 assets   verdicts ████████████░░░░░░░░░░░░ 1,500 of 3,000, 10 failed')
  })

  it('does without a total while keys still arrive', () => {
    const scatters = [{ asset: 'v', succeeded: 5, failed: 0 }]
    expect(progressLine({ run: { assets: {} }, scatters })).toBe('0 of 0 assets   v ░░░░░░░░░░░░░░░░░░░░░░░░ 5')
  })
})

describe('the corpus', () => {
  let entries: MailEntry[]
  let split: Split
  let model: Model
  beforeAll(() => {
    entries = listMails()
    split = splitMails(entries)
    model = train(split.train.map((id) => mailById(id)).map(({ label, text }) => ({ label, tokens: tokenize(text) })))
  })

  it('holds 6,046 mails with ids of their own, 1,896 of them spam', () => {
    expect(new Set(entries.map(({ id }) => id)).size).toBe(6_046)
    expect(entries.filter(({ label }) => label === 'spam').length).toBe(1_896)
    expect(() => mailById('spam-1/99999')).toThrow('no mail "spam-1/99999"')
  })

  it('is split into halves that share no mail, and no copy of one', () => {
    const said = new Map(entries.map(({ id, fingerprint }) => [id, fingerprint]))
    const learned = new Set(split.train.map((id) => said.get(id)))
    expect(split.train.length + split.test.length).toBe(6_046)
    expect(split.test.filter((id) => learned.has(said.get(id)))).toEqual([])
    expect(split.test.length).toBeGreaterThan(2_800)
    expect(split.train.length).toBeGreaterThan(2_800)
  })

  it('gives a model of at most 8,000 words that is a small value', () => {
    expect(model.weights.length).toBe(8_000)
    expect(JSON.stringify(model).length).toBeLessThan(256 * 1024)
  })

  it('is judged right in more than 95 of 100 mails that the model has not seen', async () => {
    const score = scorer(model)
    const results = split.test.map((mail): VerdictResult => {
      const { label, text } = mailById(mail)
      const odds = score(tokenize(text))
      return { key: { mail }, status: 'ok', value: { label, spam: isSpam(odds), score: odds, ms: 0 } }
    })
    const { matrix } = await tally(results)
    const { accuracy, precision, recall } = scores(matrix)
    expect(accuracy).toBeGreaterThan(0.95)
    expect(precision).toBeGreaterThan(0.95)
    expect(recall).toBeGreaterThan(0.9)
  })
})
