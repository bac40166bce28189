/** What a peer needs on this machine, and how to install what is missing. */
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Peer } from './peer.ts'

export const FOLDER = fileURLToPath(new URL('.', import.meta.url))
/** Debian keeps the programs of a PostgreSQL server here, and not on the PATH. */
const DEBIAN = '/usr/lib/postgresql'

const DEBIAN_PACKAGES = { 'redis-server': 'redis-server', initdb: 'postgresql' } as const

export type Program = keyof typeof DEBIAN_PACKAGES

export interface Machine {
  /** Folder that `node_modules` is in. */
  readonly folder: string
  readonly path: string
  readonly debian: string
}

export const HERE: Machine = { folder: FOLDER, path: process.env.PATH ?? '', debian: DEBIAN }

/** A line for each thing that is missing. */
export function missing(peers: readonly Peer[], machine: Machine = HERE): string[] {
  const packages = peers.flatMap((peer) => peer.packages).filter((name) => !isInstalled(name, machine))
  const programs = new Set(peers.flatMap(({ program }) => (program === undefined ? [] : [program])))
  return [
    ...(packages.length > 0
      ? [
          `not installed in bench/peers: ${packages.join(', ')}. Start this with "npm run bench:peers", which installs them`,
        ]
      : []),
    ...[...programs]
      .filter((program) => findProgram(program, machine) === undefined)
      .map((program) => `${program} is not on the PATH. On Debian: apt-get install -y ${DEBIAN_PACKAGES[program]}`),
  ]
}

function isInstalled(name: string, { folder }: Machine): boolean {
  return existsSync(join(folder, 'node_modules', name, 'package.json'))
}

/** Path of a program, the newest of several PostgreSQLs. */
export function findProgram(program: Program, { path, debian }: Machine = HERE): string | undefined {
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : []
  const folders = [...path.split(':').filter(Boolean), ...versions.map((version) => join(debian, version, 'bin'))]
  return folders.map((folder) => join(folder, program)).find((file) => existsSync(file))
}
