/** The OpenAPI 3.1 document of the API, made from its table of routes. */
import { z } from 'zod'
import { type Route, TAGS } from './route.ts'
import { components, problem } from './schemas.ts'
import { BASE, ROUTES } from './table.ts'

type Json = Record<string, unknown>

const REF = '#/components/schemas/'

/** Where the document is served. */
export const OPENAPI_PATH = '/openapi.json'

export function openApi(): Json {
  const paths: Record<string, Json> = {}
  for (const route of ROUTES) {
    const path = `${BASE}${route.path.replaceAll(/:(\w+)/g, '{$1}')}`
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: operationOf(route) }
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'FlowStone',
      version: '1',
      description:
        'See and drive pipelines, runs, scatters, gates and schedules. Errors are problem details (RFC 9457).',
    },
    tags: TAGS.map((name) => ({ name })),
    security: [{ key: [] }],
    paths,
    components: {
      securitySchemes: { key: { type: 'http', scheme: 'bearer' } },
      schemas: schemasOf(),
      responses: {
        Problem: { description: 'Refused', content: { 'application/problem+json': { schema: ref(problem) } } },
      },
    },
  }
}

function operationOf({ method, path, tag, summary, scope, query, body, answer, status = 200, stream }: Route): Json {
  const inPath = [...path.matchAll(/:(\w+)/g)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string' },
  }))
  const inQuery = Object.entries(query.shape).map(([name, schema]) =>
    parameterOf(name, z.toJSONSchema(schema as z.ZodType, INPUT)),
  )
  return {
    operationId: operationId(method, path),
    tags: [tag],
    summary,
    description: `Needs a key that may \`${scope}\`.`,
    ...(inPath.length + inQuery.length === 0 ? {} : { parameters: [...inPath, ...inQuery] }),
    ...(body ? { requestBody: { content: { 'application/json': { schema: ref(body) } } } } : {}),
    responses: {
      [status]: {
        description: 'Done',
        content: { [stream ? 'text/event-stream' : 'application/json']: { schema: ref(answer) } },
      },
      default: { $ref: '#/components/responses/Problem' },
    },
  }
}

const INPUT = { io: 'input', target: 'draft-2020-12' } as const

function parameterOf(name: string, { $schema: _, description, ...schema }: Json): Json {
  return { name, in: 'query', ...(description === undefined ? {} : { description }), schema }
}

/** `GET /scatters/:scatter/map` is `getScattersMap`. */
function operationId(method: string, path: string): string {
  const words = path.split('/').flatMap((part) => (part === '' ? [] : [part.replace(':', 'by-')]))
  const name = words
    .map((word) => word.replaceAll(/(^|-)(\w)/g, (_, __, first: string) => first.toUpperCase()))
    .join('')
  return `${method.toLowerCase()}${name}`
}

/** Throws for a schema that has no name: it would stand in the document many times. */
function ref(schema: z.ZodType): Json {
  const id = components.get(schema)?.id
  if (id === undefined) throw new Error('a body or an answer of the API has no name')
  return { $ref: `${REF}${id}` }
}

function schemasOf(): Json {
  const { schemas } = z.toJSONSchema(components, { ...INPUT, uri: (id) => `${REF}${id}` })
  return Object.fromEntries(Object.entries(schemas).map(([id, { $schema: _, $id: __, ...schema }]) => [id, schema]))
}
