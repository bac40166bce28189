/** Links between the pages of the documentation: do they lead somewhere? */
import { dirname, join, normalize } from 'node:path'

/** Relative links that lead nowhere, as `page: link`. `read` gives the text of a page. */
export function brokenLinks(
  pages: readonly string[],
  read: (path: string) => string | undefined,
  exists: (path: string) => boolean,
): string[] {
  const anchors = (path: string): readonly string[] => anchorsOf(read(path) ?? '')
  return pages.flatMap((page) =>
    linksOf(read(page) ?? '')
      .filter((link) => {
        const [path = '', anchor] = link.split('#')
        const file = path === '' ? page : normalize(join(dirname(page), path))
        if (!exists(file)) return true
        return anchor !== undefined && file.endsWith('.md') && !anchors(file).includes(anchor)
      })
      .map((link) => `${page}: the link ${link} leads nowhere`),
  )
}

/** Relative ones, in prose. */
function linksOf(page: string): string[] {
  const prose = page.replace(/^ *```[\s\S]*?^ *```$/gm, '').replace(/`[^`\n]*`/g, '')
  const links = [...prose.matchAll(/\]\(([^)\s]+)\)/g)].flatMap(([, link]) => link ?? [])
  return links.filter((link) => !/^[a-z]+:/.test(link))
}

/** Of all headings, as GitHub makes them. */
function anchorsOf(page: string): string[] {
  const prose = page.replace(/^ *```[\s\S]*?^ *```$/gm, '')
  const counts = new Map<string, number>()
  return [...prose.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) => {
    const text = heading
      .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .trim()
      .toLowerCase()
    const slug = text.replace(/[^\p{L}\p{N}\s_-]/gu, '').replace(/\s/g, '-')
    const count = counts.get(slug) ?? 0
    counts.set(slug, count + 1)
    return count === 0 ? slug : `${slug}-${count}`
  })
}
