import { jetstreamManager } from '@nats-io/jetstream'
import { connect as connectNats } from '@nats-io/transport-node'
import { expect, it } from 'vitest'
import { connect } from '../../src/index.ts'
import { startCluster } from '../../src/server/index.ts'
import { scratchFolder } from '../kit/scratch.ts'
import { freshNamespace, listeningLogger } from '../kit/stage.ts'

it('replicas reach every stream, the object store too, and are lowered by setup alone', async () => {
  using scratch = scratchFolder()
  await using cluster = await startCluster({ dir: scratch.path, syncInterval: 'default' })
  const servers = [...cluster.urls]
  const namespace = freshNamespace()
  const logger = listeningLogger()
  const nc = await connectNats({ servers })
  const jsm = await jetstreamManager(nc)
  const copies = async (): Promise<Set<number>> => {
    const found = new Set<number>()
    for await (const { config } of jsm.streams.list())
      if (config.name.includes(namespace)) found.add(config.num_replicas)
    return found
  }
  {
    await using one = await connect({ servers, namespace, replicas: 1, logger })
    await one.engine()
    expect(await copies()).toEqual(new Set([1]))
  }
  {
    await using three = await connect({ servers, namespace, replicas: 3, logger })
    await three.engine()
    expect(await copies()).toEqual(new Set([3]))
  }
  {
    await using old = await connect({ servers, namespace, replicas: 1, logger })
    await old.engine()
    expect(await copies()).toEqual(new Set([3]))
    expect(logger.lines.join('\n')).toContain('flowstone setup --replicas 1')
    expect(await old.setup({ replicas: 1 })).toMatchObject({ replicas: 1 })
    expect(await copies()).toEqual(new Set([1]))
  }
  await nc.close()
})
