/**
 * Calls the functions of a subscription for a message. What comes of it goes to the log as an
 * event: the run that is to start, or why none can.
 */
import { JetStreamApiError } from '@nats-io/jetstream'
import { errors } from '@nats-io/nats-core'
import { GROUP_BYTES_MAX } from '../../../projections/events/group.ts'
import { FlowStoneError, InvalidError, messageOf } from '../../../streams/errors.ts'
import type { TakenEvent } from '../../../streams/event-schemas.ts'
import { hash64 } from '../../../streams/ids.ts'
import type { PipelineSpec } from '../../../streams/schemas.ts'
import { traceOfMessage } from '../../../streams/trace.ts'
import { inputsUpstream } from '../../define/input.ts'
import type { StandardSchema } from '../../define/standard-schema.ts'
import type { EventMessage, Subscription, SubscriptionDefinition } from '../../define/subscription.ts'
import type { Io } from '../../io/manager.ts'
import { runRequestOf, TEXT_MAX } from '../../runs/run-request.ts'
import { isThenable } from '../attempt/run-code.ts'
import { eventMessage, MSG_ID, type RawMessage } from './message.ts'

type Field = 'filter' | 'key' | 'partition' | 'tags' | 'input' | 'group' | 'concurrencyKey'

export class Mapper {
  readonly #definition: SubscriptionDefinition
  readonly #pipeline: PipelineSpec
  readonly #io: Io
  readonly #schemas: ReadonlyMap<string, StandardSchema>
  readonly #bucket: string | undefined

  constructor(pipeline: PipelineSpec, { definition }: Subscription, io: Io) {
    this.#definition = definition
    this.#pipeline = pipeline
    this.#io = io
    const { from } = definition.spec
    this.#bucket = 'bucket' in from ? from.bucket : undefined
    this.#schemas = new Map(
      [...inputsUpstream(definition.run)].flatMap(
        ([
          name,
          {
            definition: { inputSchema },
          },
        ]) => (inputSchema ? [[name, inputSchema] as const] : []),
      ),
    )
  }

  /** Undefined for a message that the subscription's filter leaves out. */
  async map(raw: RawMessage): Promise<TakenEvent | undefined> {
    const id = raw.headers.get(MSG_ID)
    const trace = traceOfMessage(raw.headers)
    const place = {
      seq: raw.seq,
      ...(id === undefined || id.length > TEXT_MAX ? {} : { msgId: id }),
      ...(trace === undefined ? {} : { trace }),
    }
    try {
      const message = eventMessage(raw, this.#bucket)
      if (this.#definition.filter && this.#call('filter', message) !== true) return undefined
      if (id !== undefined && id.length > TEXT_MAX)
        throw new InvalidError(`Nats-Msg-Id: it has ${id.length} characters, of at most ${TEXT_MAX}`)
      return { ...place, ...(await this.#event(message)) }
    } catch (error) {
      if (isOfStorage(error)) throw error
      return { ...place, refused: messageOf(error) }
    }
  }

  async #event(message: EventMessage): Promise<Omit<TakenEvent, 'seq' | 'msgId'>> {
    const { spec, isList, concurrency } = this.#definition
    const concurrencyKey = this.#call('concurrencyKey', message)
    const given = this.#inputOf(message)
    const options = {
      input: isList ? listsOf(given) : given,
      partition: this.#call('partition', message),
      tags: this.#call('tags', message),
      key: this.#call('key', message) ?? message.id,
      ...(concurrency ? { concurrency: { ...concurrency, key: concurrencyKey ?? spec.name } } : {}),
    }
    const context = {
      at: 'message',
      pipeline: this.#pipeline,
      target: spec.run,
      io: this.#io,
      schemas: this.#schemas,
    }
    // What functions gave is checked there, whatever its type.
    const request = await runRequestOf(context, options as Parameters<typeof runRequestOf>[1])
    const { key, partition, tags, input } = request
    return {
      ...(key === undefined ? {} : { key }),
      ...(partition === undefined ? {} : { partition }),
      ...(tags === undefined ? {} : { tags }),
      ...(input === undefined ? {} : { input }),
      ...(concurrency && request.concurrency ? { concurrency: request.concurrency } : {}),
      ...(spec.batch || spec.debounce ? this.#groupOf(message, request, Object.keys(given)) : {}),
    }
  }

  #inputOf(message: EventMessage): Record<string, unknown> {
    const { only } = this.#definition
    if (only !== undefined) return { [only]: message.json() }
    const given = this.#call('input', message)
    if (typeof given !== 'object' || given === null || Array.isArray(given))
      throw new InvalidError('input: the function must return an object with a value for each input')
    return { ...given }
  }

  #groupOf(
    message: EventMessage,
    { partition, input, concurrency }: Pick<TakenEvent, 'partition' | 'input' | 'concurrency'>,
    names: readonly string[],
  ): Pick<TakenEvent, 'group' | 'bytes'> {
    const key = this.#call('group', message) ?? ''
    if (typeof key !== 'string') throw new InvalidError(`batch or debounce: key must be text, got ${typeof key}`)
    const bytes = JSON.stringify(input ?? {}).length
    if (bytes > GROUP_BYTES_MAX)
      throw new InvalidError(
        `input: it takes ${bytes} bytes, and messages that wait for each other may take ${GROUP_BYTES_MAX}; give the run a reference to it`,
      )
    for (const name of names) {
      const value = input?.[name]
      if (value && !('json' in value))
        throw new InvalidError(
          `input.${name}: messages that wait for each other must bring small JSON; give the run a reference to it`,
        )
    }
    // A run has one concurrency key.
    const own = this.#definition.concurrency && concurrency ? [concurrency.key] : []
    const text = JSON.stringify([key, partition ?? null, ...own])
    return { group: `${hash64(text)}${hash64(`${text}#`)}`, bytes }
  }

  #call(field: Field, message: EventMessage): unknown {
    const definition = this.#definition
    if (!definition[field]) return undefined
    let result: unknown
    try {
      result = definition[field](message)
    } catch (cause) {
      throw new InvalidError(`${field}: ${messageOf(cause)}`, { cause })
    }
    if (!isThenable(result)) return result
    Promise.resolve(result).catch(() => undefined)
    throw new InvalidError(`${field}: the function returned a promise, and messages are not waited for`)
  }
}

/** Not of the message: large input could not be stored. */
function isOfStorage(error: unknown): boolean {
  if (error instanceof FlowStoneError) return error.code !== 'invalid'
  return (
    error instanceof JetStreamApiError ||
    error instanceof errors.TimeoutError ||
    error instanceof errors.RequestError ||
    error instanceof errors.NoRespondersError ||
    error instanceof errors.ClosedConnectionError
  )
}

function listsOf(given: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(given).map(([name, value]) => [name, value === undefined ? [] : [value]]))
}
