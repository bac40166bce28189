import { readFileSync } from 'node:fs'
import { parse } from 'yaml'
import { z } from 'zod'

const Compose = z.object({ services: z.object({ nats: z.object({ image: z.string() }) }) })

/** The image that docker-compose.yml uses: one place says which it is. */
export function natsImage(): string {
  const file = new URL('../../docker-compose.yml', import.meta.url)
  return Compose.parse(parse(readFileSync(file, 'utf8'), { merge: true })).services.nats.image
}

/** Starts nats-server in a container with the configuration of docker-compose.yml's single node. */
export async function startContainer(): Promise<{
  url: string
  stop(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}> {
  // Loaded only here: it takes a while, and most runs have no use for it.
  const { GenericContainer, Wait } = await import('testcontainers')
  const config = new URL('../../docker/nats-server.conf', import.meta.url)
  const container = await new GenericContainer(natsImage())
    .withExposedPorts(4222, 8222)
    .withCopyContentToContainer([{ content: readFileSync(config, 'utf8'), target: '/etc/nats/flowstone.conf' }])
    .withCommand(['-c', '/etc/nats/flowstone.conf'])
    .withWaitStrategy(Wait.forHttp('/healthz', 8222))
    .start()
  const stop = async () => {
    await container.stop({ removeVolumes: true })
  }
  return {
    url: `nats://${container.getHost()}:${container.getMappedPort(4222)}`,
    stop,
    [Symbol.asyncDispose]: stop,
  }
}
