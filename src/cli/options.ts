/** What several commands take. */
import type { Command } from 'commander'

/** Options of every command that talks to a server. */
export function connected(command: Command): Command {
  return command
    .option('--server <url>', 'nats-server, or several separated by commas')
    .option('--namespace <name>', 'default: flowstone')
    .option('--json', 'JSON instead of text')
}
