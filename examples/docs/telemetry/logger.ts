import { connect, type Logger } from '../../../src/index.ts'

const lines: string[] = []

// #region logger
const logger: Logger = {
  debug: () => undefined,
  info: (message, fields) => lines.push(JSON.stringify({ level: 'info', message, ...fields })),
  warn: (message, fields) => lines.push(JSON.stringify({ level: 'warn', message, ...fields })),
  error: (message, fields) => lines.push(JSON.stringify({ level: 'error', message, ...fields })),
}
const flow = await connect({ logger })
// #endregion

await flow.close()
