import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from './run.ts'

/**
 * The Debian release whose nats-server is new enough (2.15; Debian 13 has 2.10). The program is
 * made for a newer Debian than the one at hand, but needs only old symbols of libc; whoever uses it
 * runs it once before trusting it.
 */
const SUITE = 'forky'
const KEYRINGS = '/usr/share/keyrings'
const SOURCES = '/etc/apt/sources.list.d'

/**
 * Fetches Debian's own nats-server package into `folder` and returns the path of the program in it.
 * The signature is checked by apt, with the archive key that is installed. Needs no root, and
 * neither reads nor writes the system's package lists or sources, except to learn which mirror this
 * machine uses.
 * @throws Error with the reason, when this is no Debian or the mirror does not answer.
 */
export async function fetchDebianPackage(folder: string): Promise<string> {
  if (process.platform !== 'linux') throw new Error('only on Debian')
  const keyring = findKeyring()
  if (keyring === undefined) throw new Error('only on Debian: no Debian archive keyring here')
  const mirrors = await findMirrors()
  if (mirrors.length === 0) throw new Error("no Debian mirror among this system's package sources")

  let reason: unknown
  for (const mirror of mirrors.slice(0, 3)) {
    try {
      return await fetchFrom(mirror, keyring, folder)
    } catch (error) {
      reason = error
    }
  }
  throw reason
}

async function fetchFrom(mirror: string, keyring: string, folder: string): Promise<string> {
  mkdirSync(join(folder, 'lists', 'partial'), { recursive: true })
  mkdirSync(join(folder, 'cache', 'archives', 'partial'), { recursive: true })
  const sources = join(folder, 'sources.list')
  writeFileSync(sources, `deb [signed-by=${keyring} target=Packages] ${mirror} ${SUITE} main\n`)
  const config = join(folder, 'apt.conf')
  writeFileSync(config, aptConfig(folder, sources))

  const updated = await run('apt-get', ['-c', config, '-qq', 'update'], { timeoutMs: 120_000 })
  if (!updated.ok) throw new Error(`apt-get update: ${updated.complaint}`)
  const fetched = await run('apt-get', ['-c', config, '-qq', 'download', 'nats-server'], {
    timeoutMs: 120_000,
    cwd: folder,
  })
  if (!fetched.ok) throw new Error(`apt-get download: ${fetched.complaint}`)
  const deb = readdirSync(folder).find((name) => /^nats-server_.*\.deb$/.test(name))
  if (deb === undefined) throw new Error('apt-get download left no package')
  const unpacked = await run('dpkg-deb', ['-x', deb, 'root'], { timeoutMs: 60_000, cwd: folder })
  if (!unpacked.ok) throw new Error(`dpkg-deb: ${unpacked.complaint}`)
  return join(folder, 'root', 'usr', 'sbin', 'nats-server')
}

/**
 * Read by apt after its own configuration, so it wins; what is said there of proxies stays in
 * force.
 */
function aptConfig(folder: string, sources: string): string {
  const setting = (name: string, value: string) => `${name} "${value}";`
  return [
    setting('Dir::Etc::sourcelist', sources),
    setting('Dir::Etc::sourceparts', '-'),
    setting('Dir::State::lists', join(folder, 'lists')),
    setting('Dir::Cache', join(folder, 'cache')),
    // As root, apt would fetch as the user _apt, who cannot write here.
    setting('APT::Sandbox::User', 'root'),
    setting('Acquire::Languages', 'none'),
    setting('Acquire::Retries', '0'),
    setting('Acquire::http::Timeout', '10'),
    setting('Acquire::https::Timeout', '10'),
    // Else apt-get update succeeds with a warning when the mirror did not answer.
    setting('APT::Update::Error-Mode', 'any'),
    // Hooks are for the system's own lists and caches, which this must not touch.
    '#clear APT::Update::Pre-Invoke;',
    '#clear APT::Update::Post-Invoke;',
    '#clear APT::Update::Post-Invoke-Success;',
    '',
  ].join('\n')
}

function findKeyring(): string | undefined {
  const name = listFolder(KEYRINGS).find((file) => /^debian-archive-keyring\.(gpg|pgp)$/.test(file))
  return name === undefined ? undefined : join(KEYRINGS, name)
}

/**
 * The Debian mirrors that this machine uses, best guess first. Security archives do not have this
 * package.
 */
async function findMirrors(): Promise<string[]> {
  const format = '$(ORIGIN)|$(LABEL)|$(REPO_URI)'
  const targets = await run('apt-get', ['indextargets', '--format', format, 'Created-By: Packages'], {
    timeoutMs: 10_000,
  })
  const listed = targets.stdout
    .split('\n')
    .map((line) => line.split('|'))
    .filter(([origin, label]) => origin === 'Debian' && label === 'Debian')
    .map(([, , uri]) => uri)
  // Where the lists were deleted, as container images do, apt cannot say who is who; then the
  // sources are read.
  return unique([...listed, ...mirrorsInSources()])
}

function mirrorsInSources(): string[] {
  const files = ['/etc/apt/sources.list', ...listFolder(SOURCES).map((name) => join(SOURCES, name))]
  const uris: string[] = []
  for (const file of files) {
    const text = readFile(file)
    // deb822: a paragraph of fields.
    for (const paragraph of text.split(/\n\s*\n/)) {
      if (/^Enabled:\s*no/im.test(paragraph)) continue
      uris.push(...(/^URIs:\s*(.+)$/im.exec(paragraph)?.[1]?.split(/\s+/) ?? []))
    }
    // One line: `deb [options] uri suite component`.
    for (const match of text.matchAll(/^deb\s+(?:\[[^\]]*\]\s+)?(\S+)/gm)) uris.push(match[1] ?? '')
  }
  return uris.filter((uri) => /^https?:.*\/debian\/?$/.test(uri))
}

function unique(uris: (string | undefined)[]): string[] {
  const clean = uris.filter((uri) => uri !== undefined && uri !== '').map((uri) => uri?.replace(/\/+$/, '') ?? '')
  return [...new Set(clean)]
}

function listFolder(path: string): string[] {
  try {
    return readdirSync(path).sort()
  } catch {
    return []
  }
}

function readFile(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
