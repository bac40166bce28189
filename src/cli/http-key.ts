/** `flowstone http key`: makes an API key and shows it once, with its line of the configuration. */
import { InvalidError } from '../../streams/errors.ts'
import { type ApiKey, ApiKeys, newApiKey } from '../http/shared/api-keys.ts'
import { parseDate } from '../options/date.ts'
import { outputOf } from './output.ts'

export interface KeyCommand {
  readonly id: string
  readonly assets: string
  readonly may?: string
  readonly role?: string
  readonly expires?: string
  readonly json?: boolean
}

export function makeKey({ id, assets, may, role, expires, json }: KeyCommand): void {
  const { key, hash } = newApiKey()
  // What `may` and `role` hold is checked with the rest.
  const entry = {
    id,
    hash,
    assets: assets.split(','),
    ...(may === undefined ? {} : { may: may.split(',') as ApiKey['may'] & {} }),
    ...(role === undefined ? {} : { role: role as ApiKey['role'] & {} }),
    ...(expires === undefined ? {} : { expires }),
  }
  new ApiKeys([entry])
  if (expires !== undefined && (parseDate(expires) ?? 0) < Date.now())
    throw new InvalidError(`--expires must be in the future, got ${expires}`)
  const output = outputOf(json === true)
  output.note('The key, which is shown this once. Give it to its client, and keep it nowhere else:')
  output.result({ key, entry }, () => [key])
  output.note(`For apiKeys in the module of flowstone http --config:\n${lineOf(entry)}`)
}

/** As one writes it in a module. */
function lineOf(entry: ApiKey): string {
  const text = (value: unknown): string =>
    Array.isArray(value) ? `[${value.map(text).join(', ')}]` : `'${String(value)}'`
  const fields = Object.entries(entry).map(([name, value]) => `${name}: ${text(value)}`)
  return `{ ${fields.join(', ')} },`
}
