/**
 * What a process knows of gates: the secrets of their tokens, and where it is reached from outside.
 */
import { InvalidError } from '../../streams/errors.ts'
import { refuseUnknown } from '../options/unknown.ts'
import { type GateSecret, parseSecrets, TokenKeys } from './token.ts'
import { callbackUrl, parseBaseUrl } from './url.ts'

/** Options of `connect` for signal gates: their tokens' secrets and address. */
export interface GatesOptions {
  /**
   * Secrets that tokens are signed with: the first signs, all verify. To change one, put the new
   * one in front, and drop the old one when its gates have ended. Each at least 32 bytes. Default:
   * the environment's FLOWSTONE_GATE_SECRETS (`<id>:<secret>`, several separated by commas); there
   * is no other default, and without one no gate is opened.
   */
  readonly secrets?: readonly GateSecret[]
  /**
   * Where the HTTP handler is reached from outside, such as `https://flows.example.com`. Default:
   * the environment's FLOWSTONE_BASE_URL.
   */
  readonly baseUrl?: string
}

export interface GateSettings {
  readonly keys: TokenKeys
  readonly baseUrl: string | undefined
}

/** The token of a gate that this secret signed, and where it is taken. */
export function addressOfGate({ keys, baseUrl }: GateSettings, gate: string, keyId: string) {
  return {
    get token(): string {
      return keys.sign(gate, keyId)
    },
    get callbackUrl(): string {
      return callbackUrl(baseUrl, keys.sign(gate, keyId))
    },
  }
}

/** Throws InvalidError for a secret that is no good, or a base address that is none. */
export function gateSettings(options: GatesOptions = {}, env: NodeJS.ProcessEnv = process.env): GateSettings {
  if (typeof options !== 'object' || options === null)
    throw new InvalidError('gates must be an object such as { secrets: [{ id, secret }], baseUrl }')
  refuseUnknown('gates', options, ['secrets', 'baseUrl'])
  const secrets = options.secrets ?? parseSecrets(env.FLOWSTONE_GATE_SECRETS ?? '')
  const baseUrl = options.baseUrl ?? (env.FLOWSTONE_BASE_URL || undefined)
  return { keys: new TokenKeys(secrets), baseUrl: baseUrl === undefined ? undefined : parseBaseUrl(baseUrl) }
}
