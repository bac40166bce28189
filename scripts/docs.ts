/**
 * The code blocks of the documentation are files that run: `examples/docs/<page>/<name>.ts`.
 *
 *     node scripts/docs.ts            writes the blocks into the pages
 *     node scripts/docs.ts --check    fails when a block differs or is in no file, or a link leads
 *                                     nowhere
 *
 * In a page, the line before a block names its file, or one region of it:
 *
 *     <!-- snippet: examples/docs/start/pipeline.ts#region -->
 *
 * In the file, `// #region NAME` and `// #endregion` enclose a region. The imports of the file are
 * relative; the page shows the names of the package instead.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { brokenLinks } from './links.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const SNIPPET = /^(\s*)<!-- snippet: (\S+?)(?:#(\S+))? -->$/
const FENCE = /^\s*(```+)(\w*)/
const CODE = new Set(['ts', 'typescript', 'js', 'javascript', 'mjs'])
const MARKER = /^\s*\/\/ #(?:region|endregion)\b/

/** What a page shows of a file: all of it, or one region. Throws if the region is not there. */
export function shown(source: string, region?: string): string[] {
  const lines = source.trimEnd().split('\n')
  const part = region === undefined ? lines : regionOf(lines, region)
  return dedent(part.filter((line) => !MARKER.test(line))).map(packageNames)
}

/** The page with its blocks as they should be, and what is wrong with it. */
export function withSnippets(
  page: string,
  read: (path: string) => string | undefined,
): { readonly text: string; readonly problems: readonly string[] } {
  const lines = page.split('\n')
  const out: string[] = []
  const problems: string[] = []
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at] ?? ''
    const [, indent = '', path, region] = SNIPPET.exec(line) ?? []
    const start = path === undefined ? at : at + 1
    const [, fence, language = ''] = FENCE.exec(lines[start] ?? '') ?? []
    const end = fence === undefined ? start : endOfBlock(lines, start, fence) + 1
    if (path !== undefined) {
      try {
        const code = shownOf(path, region, read).map((text) => (text === '' ? '' : indent + text))
        out.push(line, `${indent}\`\`\`ts`, ...code, `${indent}\`\`\``)
      } catch (error) {
        problems.push(`line ${at + 1}: ${error instanceof Error ? error.message : error}`)
        out.push(line, ...lines.slice(start, end))
      }
      at = end - 1
    } else if (fence !== undefined) {
      if (CODE.has(language)) problems.push(`line ${at + 1}: a block of ${language} is no snippet`)
      out.push(...lines.slice(at, end))
      at = end - 1
    } else out.push(line)
  }
  return { text: out.join('\n'), problems }
}

function shownOf(path: string, region: string | undefined, read: (path: string) => string | undefined): string[] {
  const source = read(path)
  if (source === undefined) throw new Error(`there is no file ${path}`)
  return shown(source, region)
}

function endOfBlock(lines: readonly string[], start: number, fence: string): number {
  const end = lines.findIndex((line, at) => at > start && line.trim() === fence)
  return end < 0 ? lines.length - 1 : end
}

function regionOf(lines: readonly string[], name: string): string[] {
  const start = lines.findIndex((line) => line.trim() === `// #region ${name}`)
  if (start < 0) throw new Error(`there is no region ${name}`)
  let depth = 1
  for (let at = start + 1; at < lines.length; at++) {
    if (/^\s*\/\/ #region\b/.test(lines[at] ?? '')) depth += 1
    if (/^\s*\/\/ #endregion\b/.test(lines[at] ?? '')) depth -= 1
    if (depth === 0) return lines.slice(start + 1, at)
  }
  throw new Error(`region ${name} has no end`)
}

function dedent(lines: readonly string[]): string[] {
  const filled = lines.filter((line) => line.trim() !== '')
  const width = Math.min(...filled.map((line) => line.length - line.trimStart().length))
  return lines.map((line) => line.slice(width))
}

function packageNames(line: string): string {
  return line.replace(/'(?:\.\.\/)+src\/(?:(\w+)\/)?index\.ts'/g, (_, folder?: string) =>
    folder === undefined ? `'flowstone'` : `'flowstone/${folder}'`,
  )
}

/** The pages whose code is checked. */
function pages(): string[] {
  const inDocs = readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
  return [
    'README.md',
    'CONTRIBUTING.md',
    'SECURITY.md',
    'CHANGELOG.md',
    ...inDocs.map((name) => join('docs', name)).sort(),
  ].filter((name) => name.endsWith('.md'))
}

function main(): void {
  const { values } = parseArgs({ options: { check: { type: 'boolean', default: false } } })
  const read = (path: string): string | undefined =>
    existsSync(join(ROOT, path)) ? readFileSync(join(ROOT, path), 'utf8') : undefined
  const names = pages()
  const errors: string[] = []
  for (const name of names) {
    const page = read(name) ?? ''
    const { text, problems } = withSnippets(page, read)
    errors.push(...problems.map((problem) => `${name}, ${problem}`))
    if (text === page) continue
    if (values.check) errors.push(`${name} does not show its snippets as they are; run: npm run docs:snippets`)
    else {
      writeFileSync(join(ROOT, name), text)
      console.log(`${name} updated`)
    }
  }
  if (values.check) errors.push(...brokenLinks(names, read, (path) => existsSync(join(ROOT, path))))
  for (const error of errors) console.error(error)
  if (errors.length === 0) return
  console.error('How a page shows its code: see the head of scripts/docs.ts')
  process.exitCode = 1
}

if (import.meta.main) main()
