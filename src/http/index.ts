/** `flowstone/http`: signal gates over HTTP, as a handler to mount and as a server. */

export type { AddressOptions } from './address.ts'
export { type GateHandler, type GateHandlerOptions, gateHandler } from './handler.ts'
export type { ProblemReason } from './problem.ts'
export type { Rate } from './rate.ts'
export type { GatesOverHttp } from './rim.ts'
export { type GateServer, type ServeOptions, serveGates } from './serve.ts'
export type { CustomScheme, SignatureScheme } from './signatures.ts'
export type { VerifiedSender } from './verified.ts'
