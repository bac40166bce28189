/** What several commands take. */
import { type Command, Option } from 'commander'

/** Heading of these options in --help. */
export const CONNECTION = 'Connection:'

/** Which server, and as whom. */
const OPTIONS: readonly (readonly [string, string])[] = [
  ['--server <url>', 'nats-server, or several separated by commas'],
  ['--context <name>', 'a context of the NATS command line'],
  ['--creds <file>', 'credentials: a JWT and its seed'],
  ['--nkey <file>', 'the seed of an nkey'],
  ['--user <name>', 'user; better with NATS_PASSWORD than with --password, which lists of processes show'],
  ['--password <text>', 'password of the user'],
  ['--token <text>', 'token; better by NATS_TOKEN, which no list of processes shows'],
  ['--tls-ca <file>', 'certificates to trust'],
  ['--tls-cert <file>', 'certificate of this client'],
  ['--tls-key <file>', 'its key'],
  ['--tls-first', 'TLS before the server says anything'],
  ['--inbox-prefix <text>', 'where this user gets answers, such as _INBOX_worker; default: _INBOX'],
  ['--js-domain <name>', 'the JetStream domain that has the namespace'],
  ['--namespace <name>', 'default: flowstone'],
]

/** Options of every command that talks to a server. */
export function connected(command: Command): Command {
  for (const [flags, about] of OPTIONS) command.addOption(new Option(flags, about).helpGroup(CONNECTION))
  return command
    .option('--json', 'JSON instead of text')
    .option('--no-color', 'no colours and no bars, as with NO_COLOR')
}

/** Options of every command that runs until it is asked to stop. */
export function measured(command: Command): Command {
  return command
    .option('--metrics-port <port>', 'metrics for Prometheus at /metrics of this port; 0: any free one; default none')
    .option('--metrics-host <address>', 'address to listen on for them; default 127.0.0.1')
}
