/** `flowstone/http`: signal gates over HTTP, as a handler to mount and as a server. */

export { type GateHandler, type GateHandlerOptions, gateHandler } from './gates/handler.ts'
export type { CustomScheme, SignatureScheme } from './gates/signatures.ts'
export type { VerifiedSender } from './gates/verified.ts'
export { type GateServer, type ServeOptions, serveGates } from './serve.ts'
export type { AddressOptions } from './shared/address.ts'
export type { ProblemReason } from './shared/problem.ts'
export type { Rate } from './shared/rate.ts'
export type { GatesOverHttp } from './shared/request-context.ts'
