/**
 * The images that the Dockerfile builds on. Where they cannot be pulled, two are made of what this
 * machine has: one with Node, npm and a shell to build with, one with Node alone to run on.
 */
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { scratchFolder } from '../kit/scratch.ts'
import { copyInto, docker, librariesOf } from './image.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const NODE = realpathSync(join(ROOT, 'node_modules/node/bin/node'))
const CERTIFICATES = '/etc/ssl/certs/ca-certificates.crt'
const SHELL = ['sh', 'env', 'cp', 'mkdir', 'ls', 'cat', 'rm']

/** Arguments of `docker build`. */
export function baseImages(): string[] {
  const defaults = [...readFileSync(join(ROOT, 'Dockerfile'), 'utf8').matchAll(/^ARG (\w+_IMAGE)=(\S+)$/gm)]
  if (defaults.every(([, , image = '']) => docker(['pull', '-q', image]))) return []
  importImage('flowstone-test/build', makeBuildBase, { PATH: '/usr/local/bin:/bin:/usr/bin' })
  importImage('flowstone-test/runtime', makeRuntimeBase, {})
  const registry = execFileSync(npmPath(), ['config', 'get', 'registry'], { encoding: 'utf8' }).trim()
  const args = {
    BUILD_IMAGE: 'flowstone-test/build',
    RUNTIME_IMAGE: 'flowstone-test/runtime',
    NPM_CONFIG_REGISTRY: registry,
  }
  // The containers of such a daemon may reach nothing outside: npm needs this machine's network.
  return ['--network', 'host', ...Object.entries(args).flatMap(([name, value]) => ['--build-arg', `${name}=${value}`])]
}

function importImage(name: string, make: (root: string) => void, env: Record<string, string>): void {
  // The same one again: what was built on it is in the daemon's cache.
  if (docker(['image', 'inspect', name])) return
  using scratch = scratchFolder()
  const root = join(scratch.path, 'root')
  for (const folder of ['tmp', 'etc', 'root']) mkdirSync(join(root, folder), { recursive: true })
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\nnonroot:x:65532:65532::/tmp:/sbin/nologin\n')
  chmodSync(join(root, 'tmp'), 0o1777)
  make(root)
  const tarball = join(scratch.path, 'image.tar')
  execFileSync('tar', ['-C', root, '-cf', tarball, '.'])
  const changes = Object.entries(env).flatMap(([key, value]) => ['--change', `ENV ${key}=${value}`])
  execFileSync('docker', ['import', ...changes, '--change', 'LABEL flowstone.check=true', tarball, name])
}

function nodeInto(root: string, target: string): void {
  copyInto(root, NODE, target)
  for (const library of librariesOf(NODE)) copyInto(root, library, library)
}

/** As distroless images have it. */
function makeRuntimeBase(root: string): void {
  nodeInto(root, '/nodejs/bin/node')
}

function makeBuildBase(root: string): void {
  nodeInto(root, '/usr/local/bin/node')
  copyInto(root, CERTIFICATES, CERTIFICATES)
  const busybox = execFileSync('sh', ['-c', 'command -v busybox'], { encoding: 'utf8' }).trim()
  copyInto(root, busybox, '/bin/busybox')
  mkdirSync(join(root, 'usr/bin'), { recursive: true })
  for (const name of SHELL) symlinkSync('/bin/busybox', join(root, name === 'env' ? 'usr/bin/env' : `bin/${name}`))
  const modules = join(root, 'usr/local/lib/node_modules')
  cpSync(dirname(dirname(npmPath())), join(modules, 'npm'), { recursive: true })
  symlinkSync('../lib/node_modules/npm/bin/npm-cli.js', join(root, 'usr/local/bin/npm'))
  // Where the machine trusts a mirror of its own, npm has to.
  writeFileSync(join(modules, 'npm', 'npmrc'), `cafile=${CERTIFICATES}\n`)
}

/** The npm of this machine, and not the one that a script of this repository may have in front. */
function npmPath(): string {
  const folders = (process.env.PATH ?? '').split(':').filter((folder) => !folder.includes('node_modules'))
  return realpathSync(folders.map((folder) => join(folder, 'npm')).find((path) => existsSync(path)) ?? 'npm')
}
