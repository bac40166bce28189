/** Findings about secrets, as far as their age is known. */
import { ageText, bad, type Finding, type Look, ofLook, ok, warn } from './finding.ts'

export interface SeenSecrets {
  /** Ids of the secrets of gates that this process has; the first signs. */
  readonly gateKeys: readonly string[]
  /** Of gates that wait, the soonest deadlines first: which secret signed each, and when. */
  readonly waiting: Look<readonly { readonly keyId: string; readonly ageMs: number }[]>
  /** API keys of the configuration that was named. */
  readonly apiKeys: readonly { readonly id: string; readonly expiresInMs: number | undefined }[]
}

const SOON_MS = 14 * 86_400_000

export function secretFindings({ gateKeys, waiting, apiKeys }: SeenSecrets): Finding[] {
  return [
    gateKeys.length === 0
      ? {
          level: 'unseen',
          check: 'secrets.gates',
          says: 'this process has no gate secret',
          advice: 'set FLOWSTONE_GATE_SECRETS as for workers and flowstone http, to have them checked',
        }
      : ok('secrets.gates', `${gateKeys.join(', ')}; ${gateKeys[0]} signs. When they were made is not known`),
    ...(gateKeys.length === 0
      ? []
      : ofLook({ check: 'secrets.waiting' }, waiting, (gates) => waitingFindings(gates, gateKeys))),
    ...apiKeys.flatMap(apiKeyFinding),
  ]
}

function waitingFindings(
  gates: readonly { readonly keyId: string; readonly ageMs: number }[],
  gateKeys: readonly string[],
): Finding[] {
  const signers = new Map<string, { count: number; oldestMs: number }>()
  for (const { keyId, ageMs } of gates) {
    const { count = 0, oldestMs = 0 } = signers.get(keyId) ?? {}
    signers.set(keyId, { count: count + 1, oldestMs: Math.max(oldestMs, ageMs) })
  }
  return [...signers].map(([keyId, { count, oldestMs }]) => {
    const says = `signed tokens of ${count} gates that wait, the oldest for ${ageText(oldestMs)}`
    if (!gateKeys.includes(keyId))
      return bad(
        'secrets.waiting',
        `${says}, and this process does not have it`,
        'put it back behind the new one until these gates have ended: nobody can answer them',
        `secret ${keyId}`,
      )
    return keyId === gateKeys[0]
      ? ok('secrets.waiting', says, `secret ${keyId}`)
      : warn('secrets.waiting', `${says}; it signs no more`, 'keep it until these gates have ended', `secret ${keyId}`)
  })
}

function apiKeyFinding({ id, expiresInMs }: SeenSecrets['apiKeys'][number]): Finding {
  const about = `API key ${id}`
  if (expiresInMs === undefined) return ok('secrets.api_key', 'never expires', about)
  if (expiresInMs <= 0) return warn('secrets.api_key', 'has expired', 'make a new one: flowstone http key', about)
  const says = `expires in ${ageText(expiresInMs)}`
  return expiresInMs <= SOON_MS
    ? warn('secrets.api_key', says, 'make a new one of the same id, and hand it out: flowstone http key', about)
    : ok('secrets.api_key', says, about)
}
