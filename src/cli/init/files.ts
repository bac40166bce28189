/** The files of a new project. */

export interface NewProject {
  /** Of the package. */
  readonly name: string
  /** Of FlowStone. */
  readonly version: string
}

const TYPESCRIPT = '^7.0.2'
const NODE_TYPES = '^24.19.2'

/** By their paths in the folder of the project. */
export function filesOf(project: NewProject): Readonly<Record<string, string>> {
  return {
    'package.json': manifest(project),
    'tsconfig.json': TSCONFIG,
    'pipeline.ts': PIPELINE,
    'pipeline.test.ts': TEST,
    'README.md': readme(project),
    '.gitignore': 'node_modules/\n.flowstone/\n',
  }
}

function manifest({ name, version }: NewProject): string {
  const content = {
    name,
    private: true,
    type: 'module',
    engines: { node: '>=22.18' },
    scripts: { dev: 'flowstone dev pipeline.ts', test: 'node --test', types: 'tsc' },
    dependencies: { flowstone: `^${version}` },
    devDependencies: { '@types/node': NODE_TYPES, typescript: TYPESCRIPT },
  }
  return `${JSON.stringify(content, undefined, 2)}\n`
}

// Node runs the files as they are: it takes their types away, and finds files by their whole names.
const TSCONFIG = `{
  "compilerOptions": {
    "target": "es2024",
    "module": "nodenext",
    "types": ["node"],
    "strict": true,
    "noEmit": true,
    "skipLibCheck": true,
    "erasableSyntaxOnly": true,
    "verbatimModuleSyntax": true,
    "allowImportingTsExtensions": true
  }
}
`

/** That of the README. */
const PIPELINE = `import { asset, pipeline } from 'flowstone'

// An asset is a named piece of data, with the function that makes it.
export const cities = asset('cities', { execute: () => ['Lima', 'Oslo', 'Pune', 'Quito'] })

// A scatter has an instance for each key. They run in parallel, over all workers.
export const forecasts = asset('forecasts', {
  dependsOn: [cities],
  scatter: ({ cities }) => cities.map((city) => ({ city })), // one instance for each city
  execute: ({ scatterKey }) => \`\${scatterKey.city}: sunny\`,
  scatterOptions: { maxConcurrent: 20, rateLimit: [10, 'second'], retry: { maxAttempts: 5 } },
})

// The values of dependsOn are the second argument.
export const report = asset('report', {
  dependsOn: [forecasts],
  execute: (_ctx, { forecasts }) => forecasts.map(({ value }) => value).join(', '),
})

export default pipeline('weather', [cities, forecasts, report])
`

const TEST = `import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { connect } from 'flowstone'
import { startServer } from 'flowstone/server'
import weather, { report } from './pipeline.ts'

test('the report has a forecast for each city', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'flowstone-'))
  const server = await startServer({ dir, syncInterval: 'default' })
  const flow = await connect({ servers: server.url })
  t.after(async () => {
    await flow.close()
    await server.stop()
    await rm(dir, { recursive: true })
  })
  await flow.engine()
  await flow.worker(weather)

  const run = await flow.materialize(report)
  assert.equal(await run.result(), 'Lima: sunny, Oslo: sunny, Pune: sunny, Quito: sunny')
})
`

function readme({ name }: NewProject): string {
  return `# ${name}

A pipeline on [FlowStone](https://www.npmjs.com/package/flowstone). It needs Node 22.18 or later.

\`\`\`sh
npm install
npm test                    # makes the report on a server of its own
npm run dev                 # server, engine, worker and console; reloads what you change
npx flowstone run report    # in a second terminal: makes the report, prints it
npx flowstone status --all  # all runs
npm run types               # checks the types
\`\`\`

| file | what it is |
|---|---|
| \`pipeline.ts\` | the assets, and the pipeline that has them |
| \`pipeline.test.ts\` | a test that runs the pipeline on a real server |
| \`.flowstone/\` | what \`npm run dev\` stores; delete it to begin anew |
`
}
