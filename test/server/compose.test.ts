import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { parse } from 'yaml'
import { z } from 'zod'
import { RELEASE_VERSION } from '../../src/server/index.ts'

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')

const Compose = z.object({
  services: z.record(
    z.string(),
    z.object({
      image: z.string(),
      ports: z.array(z.string()),
      profiles: z.array(z.string()).optional(),
      volumes: z.array(z.string()),
      command: z.array(z.string()),
      healthcheck: z.object({ test: z.array(z.string()) }),
    }),
  ),
})
const { services } = Compose.parse(parse(read('docker-compose.yml'), { merge: true }))

it('docker-compose.yml runs one node, and three more when the cluster is asked for', () => {
  const byProfile = Object.entries(services).map(([name, service]) => [name, service.profiles ?? []])
  expect(Object.fromEntries(byProfile)).toEqual({
    nats: [],
    'nats-1': ['cluster'],
    'nats-2': ['cluster'],
    'nats-3': ['cluster'],
  })
})

it('its images are the version that the project fetches itself', () => {
  for (const service of Object.values(services)) expect(service.image).toBe(`nats:${RELEASE_VERSION}-alpine`)
})

it('its ports are open to this machine only, each is used once, and the first is the usual one', () => {
  const ports = Object.values(services).flatMap((service) => service.ports)
  for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:\d+:4222$/)
  expect(new Set(ports).size).toBe(4)
  expect(services.nats?.ports).toEqual(['127.0.0.1:4222:4222'])
})

it('its servers write to disk before they acknowledge', () => {
  for (const file of ['docker/nats-server.conf', 'docker/nats-cluster.conf']) {
    expect(read(file)).toMatch(/sync_interval: always/)
    expect(read(file)).toMatch(/store_dir: \/data/)
  }
  for (const service of Object.values(services)) {
    expect(service.volumes.some((volume) => volume.endsWith(':/data'))).toBe(true)
  }
})
