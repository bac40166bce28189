/** What several commands take. */
import type { Command } from 'commander'

/** Options of every command that talks to a server. */
export function connected(command: Command): Command {
  return command
    .option('--server <url>', 'nats-server, or several separated by commas')
    .option('--context <name>', 'a context of the NATS command line')
    .option('--creds <file>', 'credentials: a JWT and its seed')
    .option('--nkey <file>', 'the seed of an nkey')
    .option('--user <name>', 'user; its password by NATS_PASSWORD, where no list of processes shows it')
    .option('--password <text>', 'its password')
    .option('--token <text>', 'token; better by NATS_TOKEN')
    .option('--tls-ca <file>', 'whom to trust')
    .option('--tls-cert <file>', 'certificate of this client')
    .option('--tls-key <file>', 'its key')
    .option('--tls-first', 'TLS before the server says anything')
    .option('--js-domain <name>', 'the JetStream domain that has the namespace')
    .option('--namespace <name>', 'default: flowstone')
    .option('--json', 'JSON instead of text')
}
