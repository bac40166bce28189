/**
 * What `nsc` makes: an operator, a system account, an account with JetStream, and a user's
 * credentials; as a server and a client want them.
 */
import { createAccount, createOperator, createUser, type KeyPair } from '@nats-io/nkeys'

export interface OperatorMode {
  /** For the configuration of nats-server. */
  readonly config: Record<string, unknown>
  /** The text of a `.creds` file. */
  readonly creds: string
}

export function operatorMode(): OperatorMode {
  const [operator, system, account, user] = [createOperator(), createAccount(), createAccount(), createUser()]
  const none = { subs: -1, data: -1, payload: -1, imports: -1, exports: -1, wildcards: true, conn: -1, leaf: -1 }
  const storage = { mem_storage: -1, disk_storage: -1, streams: -1, consumer: -1 }
  const accountOf = (key: KeyPair, limits: object): string =>
    token(operator, { name: 'account', sub: key.getPublicKey(), nats: { type: 'account', version: 2, limits } })
  const config = {
    operator: token(operator, {
      name: 'operator',
      sub: operator.getPublicKey(),
      nats: { type: 'operator', version: 2, system_account: system.getPublicKey() },
    }),
    system_account: system.getPublicKey(),
    resolver: 'MEMORY',
    resolver_preload: {
      [system.getPublicKey()]: accountOf(system, none),
      [account.getPublicKey()]: accountOf(account, { ...none, ...storage }),
    },
  }
  const jwt = token(account, {
    name: 'user',
    sub: user.getPublicKey(),
    nats: { type: 'user', version: 2, subs: -1, data: -1, payload: -1 },
  })
  const seed = new TextDecoder().decode(user.getSeed())
  const creds = `-----BEGIN NATS USER JWT-----
${jwt}
------END NATS USER JWT------

-----BEGIN USER NKEY SEED-----
${seed}
------END USER NKEY SEED------
`
  return { config, creds }
}

function token(by: KeyPair, claims: Record<string, unknown>): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  const head = part({ typ: 'JWT', alg: 'ed25519-nkey' })
  const body = part({ jti: 'test', iat: Math.floor(Date.now() / 1000), iss: by.getPublicKey(), ...claims })
  const signature = Buffer.from(by.sign(new TextEncoder().encode(`${head}.${body}`))).toString('base64url')
  return `${head}.${body}.${signature}`
}
