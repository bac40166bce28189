/** `flowstone http`, and the keys for it. What they do is loaded when they are called. */
import type { Command } from 'commander'
import type { HttpCommand } from './http.ts'
import type { KeyCommand } from './http-key.ts'
import { connected, measured } from './options.ts'

export function httpCommands(root: Command): void {
  const http = measured(connected(root.command('http')))
    .description('serve gates, runs, webhooks, the API and the console over HTTP')
    .option('--port <port>', 'default 8080; 0: any free one')
    .option('--host <address>', 'address to listen on; default 127.0.0.1')
    .option('--base-url <url>', 'how it is reached from outside; default: FLOWSTONE_BASE_URL')
    .option('--trust-proxy <who>', 'number of proxies in front, or their addresses and networks, separated by commas')
    .option('--proxy-header <name>', 'x-forwarded-for (default) or forwarded')
    .option('--max-body <bytes>', 'longest body; default 1048576')
    .option('--api', 'serve the API: for the API keys; without any, for all who reach a loopback address')
    .option('--console', 'serve the console at /, and the API that it shows')
    .option('--config <file>', 'a module whose default export has more: API keys, webhooks, signed senders, limits')
    .action(async (options: HttpCommand) => await (await import('./http.ts')).runHttp(options))

  http
    .command('key')
    .description('make an API key, and print it once, with its line for apiKeys in the module of --config')
    .requiredOption('--id <name>', 'whose key it is')
    .requiredOption('--assets <names>', 'what it may start and read, separated by commas: orders/*,sales/report')
    .option('--may <actions>', 'start, read, operate, administer, separated by commas; default start,read')
    .option('--role <role>', 'in place of --may: viewer, operator or admin')
    .option('--expires <date>', 'such as 2027-01-31; default never')
    .option('--json', 'JSON instead of text')
    .option('--no-color', 'no colours')
    .action(async (_: unknown, command: Command) =>
      (await import('./http-key.ts')).makeKey(command.optsWithGlobals<KeyCommand>()),
    )
}
