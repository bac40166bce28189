import { connect } from 'node:net'
import { SERVER_USER } from './config.ts'

/**
 * What a nats-server says of itself when one connects. `serverId` is new with every start, so it
 * identifies a process.
 */
export interface ServerInfo {
  serverId: string
  version: string
  jetStream: boolean
}

const INBOX = '_INBOX.flowstone.probe'

/**
 * Connects to a nats-server on this machine and reads who it is. It speaks the few lines of the
 * protocol itself, without a client. It runs many times a second, before there is a server to
 * connect to, and must not retry or log.
 * @throws Error when nobody answers, or it is no nats-server.
 */
export function readServerInfo(port: number, timeoutMs: number): Promise<ServerInfo> {
  return converse(port, timeoutMs, (line, _send, finish) => {
    const info = parseInfo(line)
    if (info) finish(info)
  })
}

/**
 * Like readServerInfo, but answers only when JetStream takes requests too. In a cluster that is
 * when a leader is elected.
 * @throws Error when it does not, within the time.
 */
export function readServerInfoWhenReady(
  port: number,
  timeoutMs: number,
  password: string | undefined,
): Promise<ServerInfo> {
  const login = password === undefined ? {} : { user: SERVER_USER, pass: password }
  const hello = { verbose: false, pedantic: false, headers: true, no_responders: true, ...login }
  let info: ServerInfo | undefined
  return converse(port, timeoutMs, (line, send, finish, fail) => {
    const read = parseInfo(line)
    if (read) {
      info = read
      send(`CONNECT ${JSON.stringify(hello)}\r\n`)
      send(`SUB ${INBOX} 1\r\nPUB $JS.API.INFO ${INBOX} 0\r\n\r\n`)
      return
    }
    if (line.startsWith('-ERR')) fail(new Error(line))
    // "No responders" while JetStream is not up yet.
    else if (line.startsWith('HMSG')) fail(new Error('JetStream does not answer yet'))
    else if (line.startsWith('{') && line.includes('"error"')) fail(new Error(line))
    else if (line.startsWith('{') && info) finish(info)
  })
}

type OnLine<T> = (
  line: string,
  send: (text: string) => void,
  finish: (value: T) => void,
  fail: (error: Error) => void,
) => void

function converse<T>(port: number, timeoutMs: number, onLine: OnLine<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port })
    let buffered = ''
    const end = () => {
      clearTimeout(timer)
      socket.destroy()
    }
    const fail = (error: Error) => {
      end()
      reject(error)
    }
    const finish = (value: T) => {
      end()
      resolve(value)
    }
    const timer = setTimeout(() => fail(new Error(`no answer on port ${port} within ${timeoutMs} ms`)), timeoutMs)
    socket.setEncoding('utf8')
    socket.on('error', fail)
    socket.on('close', () => fail(new Error(`port ${port} closed the connection`)))
    socket.on('data', (text: string) => {
      buffered += text
      const lines = buffered.split('\r\n')
      buffered = lines.pop() ?? ''
      for (const line of lines) onLine(line, (out) => socket.write(out), finish, fail)
    })
  })
}

function parseInfo(line: string): ServerInfo | undefined {
  if (!line.startsWith('INFO ')) return undefined
  const info: unknown = JSON.parse(line.slice(5))
  if (typeof info !== 'object' || info === null) return undefined
  if (!('server_id' in info) || typeof info.server_id !== 'string') return undefined
  return {
    serverId: info.server_id,
    version: 'version' in info && typeof info.version === 'string' ? info.version : '',
    jetStream: 'jetstream' in info && info.jetstream === true,
  }
}
