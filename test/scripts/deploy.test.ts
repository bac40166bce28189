/**
 * Dockerfile, deploy/compose.yml and deploy/kubernetes: against the command, and each other.
 */
import { readdirSync, readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { describe, expect, it } from 'vitest'
import { parse, parseAllDocuments } from 'yaml'
import { z } from 'zod'
import { program } from '../../src/cli/program.ts'
import { parseDuration } from '../../src/options/duration.ts'
import { RELEASE_VERSION } from '../../src/server/index.ts'
import { namesOf } from '../../streams/subjects.ts'

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')
const KUBERNETES = 'deploy/kubernetes'
/** A worker that stops may take so much longer than --drain, while nats-server is away. */
const AWAY_S = 25

// ---- the command ----

/** The options of a command line, by name. Throws for what the command does not know. */
function optionsOf(args: readonly string[]): { readonly command: string; readonly options: Record<string, string> } {
  const [name = '', ...rest] = args
  const command: Command | undefined = program().commands.find((one) => one.name() === name)
  if (!command) throw new Error(`there is no command ${name}`)
  const options: Record<string, string> = {}
  for (let at = 0; at < rest.length; at++) {
    const [flag = '', value] = (rest[at] ?? '').split(/=(.*)/s)
    if (!flag.startsWith('--')) continue
    const option = command.options.find(({ long }) => long === flag)
    if (!option) throw new Error(`flowstone ${name} has no option ${flag}`)
    const takes = option.required || option.optional
    if (!takes && value !== undefined) throw new Error(`${flag} takes no value`)
    options[flag] = takes ? (value ?? rest[++at] ?? '') : ''
  }
  return { command: name, options }
}

const sources = readdirSync(new URL('../../src', import.meta.url), { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => read(`src/${name}`))
  .join('\n')

function expectRead(variables: readonly string[]): void {
  for (const name of variables) expect(sources, name).toMatch(new RegExp(`\\b${name}\\b`))
}

function drainSeconds(options: Record<string, string>): number {
  return options['--drain'] === undefined ? 0 : parseDuration('--drain', options['--drain']) / 1000 + AWAY_S
}

// ---- the image ----

describe('the Dockerfile', () => {
  const lines = read('Dockerfile')
    .replace(/\\\n/g, ' ')
    .split('\n')
    .filter((line) => /^[A-Z]/.test(line))
  const last = lines.slice(lines.findLastIndex((line) => line.startsWith('FROM ')))
  const instruction = (word: string): string =>
    last.find((line) => line.startsWith(`${word} `))?.slice(word.length + 1) ?? ''

  it('ends as an image of a user by number, whose process 1 is Node with the command', () => {
    expect(last[0]).toMatch(/^FROM \$\{RUNTIME_IMAGE\}$/)
    expect(instruction('USER')).toBe('65532:65532')
    expect(instruction('STOPSIGNAL')).toBe('SIGTERM')
    const { bin } = z.object({ bin: z.object({ flowstone: z.string() }) }).parse(JSON.parse(read('package.json')))
    const main = `/app/node_modules/flowstone/${bin.flowstone.replace('./', '')}`
    expect(JSON.parse(instruction('ENTRYPOINT'))).toEqual(['/nodejs/bin/node', main])
    expect(() => JSON.parse(instruction('CMD'))).not.toThrow()
    expect(last.some((line) => line.startsWith('RUN '))).toBe(false)
  })

  it('copies what .dockerignore lets in, and the scripts that it calls are there', () => {
    const allowed = read('.dockerignore')
      .split('\n')
      .flatMap((line) => (line.startsWith('!') ? [line.slice(1)] : []))
    const { scripts } = z.object({ scripts: z.record(z.string(), z.string()) }).parse(JSON.parse(read('package.json')))
    expect(scripts.build).toBe('node scripts/build.mjs')
    const { include } = z.object({ include: z.array(z.string()) }).parse(JSON.parse(read('tsconfig.build.json')))
    for (const needed of [...include, 'scripts', 'package.json', 'package-lock.json', 'LICENSE'])
      expect(allowed).toContain(needed)
  })
})

// ---- compose ----

describe('deploy/compose.yml', () => {
  const service = z.strictObject({
    image: z.string(),
    restart: z.literal('unless-stopped'),
    build: z.strictObject({ context: z.literal('..') }).optional(),
    command: z.array(z.string()),
    environment: z.record(z.string(), z.string()).optional(),
    volumes: z.array(z.string()).optional(),
    ports: z.array(z.string()).optional(),
    read_only: z.literal(true).optional(),
    cap_drop: z.tuple([z.literal('ALL')]).optional(),
    security_opt: z.array(z.string()).optional(),
    depends_on: z.record(z.string(), z.strictObject({ condition: z.literal('service_healthy') })).optional(),
    stop_grace_period: z.string(),
    healthcheck: z.strictObject({
      test: z.array(z.string()),
      interval: z.string(),
      timeout: z.string(),
      retries: z.number(),
      start_period: z.string().optional(),
    }),
  })
  const file = z
    .looseObject({ services: z.record(z.string(), service) })
    .parse(parse(read('deploy/compose.yml'), { merge: true }))
  const { nats, ...ours } = file.services

  it('runs nats-server, two engines, a worker and HTTP', () => {
    const commands = Object.values(ours).map(({ command }) => command[0])
    expect(commands.toSorted()).toEqual(['engine', 'engine', 'http', 'worker'])
    expect(nats?.image).toBe(`nats:${RELEASE_VERSION}-alpine`)
  })

  it.each(Object.entries(ours))('gives %s options that the command knows, and time to stop', (name, one) => {
    const { options } = optionsOf(one.command)
    expect(parseDuration(name, one.stop_grace_period) / 1000).toBeGreaterThan(drainSeconds(options))
    expectRead(Object.keys(one.environment ?? {}))
    expect(one.read_only).toBe(true)
    const port = options['--health-port'] ?? options['--port'] ?? '8080'
    expect(one.healthcheck.test.join(' ')).toContain(`http://127.0.0.1:${port}/readyz`)
    for (const published of one.ports ?? []) expect(published).toBe(`127.0.0.1:${port}:${port}`)
  })
})

// ---- Kubernetes ----

const labels = z.strictObject({
  'app.kubernetes.io/name': z.literal('flowstone'),
  'app.kubernetes.io/component': z.string(),
})
const selector = z.strictObject({ matchLabels: labels })
const metadata = z.strictObject({ name: z.string(), labels: labels.optional() })
const port = z.union([z.string(), z.number()])
const probe = z.strictObject({
  httpGet: z.strictObject({ path: z.enum(['/healthz', '/readyz']), port: z.string() }),
  periodSeconds: z.number(),
  timeoutSeconds: z.number().optional(),
  failureThreshold: z.number(),
})
const container = z.strictObject({
  name: z.string(),
  image: z.string(),
  args: z.array(z.string()),
  envFrom: z.array(
    z.strictObject({
      configMapRef: z.strictObject({ name: z.string() }).optional(),
      secretRef: z.strictObject({ name: z.string() }).optional(),
    }),
  ),
  ports: z.array(z.strictObject({ name: z.string(), containerPort: z.number() })),
  startupProbe: probe,
  readinessProbe: probe,
  livenessProbe: probe,
  lifecycle: z.strictObject({ preStop: z.strictObject({ sleep: z.strictObject({ seconds: z.number() }) }) }).optional(),
  securityContext: z.strictObject({
    allowPrivilegeEscalation: z.literal(false),
    readOnlyRootFilesystem: z.literal(true),
    capabilities: z.strictObject({ drop: z.tuple([z.literal('ALL')]) }),
  }),
  resources: z.strictObject({
    requests: z.strictObject({ cpu: z.string(), memory: z.string() }),
    limits: z.strictObject({ memory: z.string() }),
  }),
})
const deployment = z.strictObject({
  apiVersion: z.literal('apps/v1'),
  kind: z.literal('Deployment'),
  metadata,
  spec: z.strictObject({
    replicas: z.number(),
    selector,
    strategy: z.strictObject({
      type: z.literal('RollingUpdate'),
      rollingUpdate: z.strictObject({ maxSurge: z.number(), maxUnavailable: z.number() }),
    }),
    template: z.strictObject({
      metadata: z.strictObject({ labels }),
      spec: z.strictObject({
        automountServiceAccountToken: z.literal(false),
        enableServiceLinks: z.literal(false),
        terminationGracePeriodSeconds: z.number(),
        securityContext: z.strictObject({
          runAsNonRoot: z.literal(true),
          runAsUser: z.literal(65532),
          runAsGroup: z.literal(65532),
          seccompProfile: z.strictObject({ type: z.literal('RuntimeDefault') }),
        }),
        topologySpreadConstraints: z.array(
          z.strictObject({
            maxSkew: z.number(),
            topologyKey: z.string(),
            whenUnsatisfiable: z.enum(['ScheduleAnyway', 'DoNotSchedule']),
            labelSelector: selector,
          }),
        ),
        containers: z.tuple([container]),
      }),
    }),
  }),
})
const service = z.strictObject({
  apiVersion: z.literal('v1'),
  kind: z.literal('Service'),
  metadata,
  spec: z.strictObject({
    selector: labels,
    ports: z.array(z.strictObject({ name: z.string(), port: z.number(), targetPort: z.string() })),
  }),
})
const namespace = z.strictObject({
  apiVersion: z.literal('v1'),
  kind: z.literal('Namespace'),
  metadata: z.strictObject({ name: z.string(), labels: z.record(z.string(), z.string()) }),
})
const configMap = z.strictObject({
  apiVersion: z.literal('v1'),
  kind: z.literal('ConfigMap'),
  metadata,
  data: z.record(z.string(), z.string()),
})
const budget = z.strictObject({
  apiVersion: z.literal('policy/v1'),
  kind: z.literal('PodDisruptionBudget'),
  metadata,
  spec: z.strictObject({ maxUnavailable: z.number(), selector }),
})
const peerPorts = z.array(z.strictObject({ protocol: z.enum(['TCP', 'UDP']), port }))
const peers = z.array(
  z.strictObject({ namespaceSelector: z.strictObject({ matchLabels: z.record(z.string(), z.string()) }) }),
)
const networkPolicy = z.strictObject({
  apiVersion: z.literal('networking.k8s.io/v1'),
  kind: z.literal('NetworkPolicy'),
  metadata,
  spec: z.strictObject({
    podSelector: z.strictObject({ matchLabels: labels.partial() }),
    policyTypes: z.array(z.enum(['Ingress', 'Egress'])),
    ingress: z.array(z.strictObject({ from: peers.optional(), ports: peerPorts })).optional(),
    egress: z
      .array(
        z.strictObject({
          to: peers.optional(),
          ports: peerPorts,
        }),
      )
      .optional(),
  }),
})
const scaled = z.strictObject({
  apiVersion: z.literal('keda.sh/v1alpha1'),
  kind: z.literal('ScaledObject'),
  metadata,
  spec: z.strictObject({
    scaleTargetRef: z.strictObject({ name: z.string() }),
    minReplicaCount: z.number(),
    maxReplicaCount: z.number(),
    pollingInterval: z.number(),
    cooldownPeriod: z.number(),
    triggers: z.array(
      z.strictObject({
        type: z.literal('nats-jetstream'),
        metadata: z.strictObject({
          natsServerMonitoringEndpoint: z.string(),
          account: z.string(),
          stream: z.string(),
          consumer: z.string(),
          lagThreshold: z.string().regex(/^\d+$/),
          activationLagThreshold: z.string().regex(/^\d+$/),
        }),
      }),
    ),
  }),
})
const manifest = z.discriminatedUnion('kind', [
  deployment,
  service,
  namespace,
  configMap,
  budget,
  networkPolicy,
  scaled,
])
type Of<K> = Extract<z.infer<typeof manifest>, { kind: K }>

describe('deploy/kubernetes', () => {
  const kustomization = z
    .strictObject({
      apiVersion: z.literal('kustomize.config.k8s.io/v1beta1'),
      kind: z.literal('Kustomization'),
      namespace: z.string(),
      resources: z.array(z.string()),
      images: z.array(z.strictObject({ name: z.string(), newName: z.string(), newTag: z.string() })),
    })
    .parse(parse(read(`${KUBERNETES}/kustomization.yaml`)))
  const documents = kustomization.resources.flatMap((file) =>
    parseAllDocuments(read(`${KUBERNETES}/${file}`)).map((document) => manifest.parse(document.toJS())),
  )
  const all = <K extends z.infer<typeof manifest>['kind']>(kind: K): Of<K>[] =>
    documents.filter((one): one is Of<K> => one.kind === kind)
  const deployments = all('Deployment')
  const podsOf = (wanted: Readonly<Record<string, string | undefined>>) =>
    deployments.filter(({ spec }) =>
      Object.entries(wanted).every(([name, value]) => Reflect.get(spec.template.metadata.labels, name) === value),
    )

  it('lists all of its files, but those for other programs', () => {
    const files = readdirSync(new URL(`../../${KUBERNETES}`, import.meta.url))
    const others = ['kustomization.yaml', 'nats-values.yaml']
    expect(files.filter((file) => !others.includes(file)).toSorted()).toEqual(kustomization.resources.toSorted())
    expect(all('Namespace').map((one) => one.metadata.name)).toEqual([kustomization.namespace])
    const images = deployments.map(({ spec }) => spec.template.spec.containers[0].image)
    expect(kustomization.images.map(({ name }) => name).toSorted()).toEqual([...new Set(images)].toSorted())
  })

  it('runs two engines, two workers and two of HTTP', () => {
    expect(deployments.map(({ metadata, spec }) => [metadata.name, spec.replicas])).toEqual([
      ['engine', 2],
      ['worker', 2],
      ['http', 2],
    ])
  })

  it.each(deployments.map((one) => [one.metadata.name, one] as const))(
    'starts %s with options that the command knows, probes that it answers, and time to stop',
    (name, { metadata, spec }) => {
      const { template } = spec
      const [pod] = template.spec.containers
      expect(spec.selector.matchLabels).toEqual(template.metadata.labels)
      expect(metadata.labels).toEqual(template.metadata.labels)
      for (const spread of template.spec.topologySpreadConstraints)
        expect(spread.labelSelector.matchLabels).toEqual(template.metadata.labels)
      const { command, options } = optionsOf(pod.args)
      expect(command).toBe(name)
      expect(options['--health-host'] ?? options['--host']).toBe('0.0.0.0')
      const [served, metrics] = pod.ports
      expect(String(served?.containerPort)).toBe(options['--health-port'] ?? options['--port'])
      expect(metrics).toEqual({ name: 'metrics', containerPort: Number(options['--metrics-port']) })
      expect(options['--metrics-host']).toBe('0.0.0.0')
      for (const one of [pod.startupProbe, pod.readinessProbe, pod.livenessProbe])
        expect(one.httpGet.port).toBe(served?.name)
      expect(pod.readinessProbe.httpGet.path).toBe('/readyz')
      expect(pod.livenessProbe.httpGet.path).toBe('/healthz')
      const pauseS = pod.lifecycle?.preStop.sleep.seconds ?? 0
      expect(template.spec.terminationGracePeriodSeconds).toBeGreaterThan(drainSeconds(options) + pauseS + 5)
    },
  )

  it('does not restart a worker whose code may still block it', () => {
    const [pod] = deployments.find(({ metadata }) => metadata.name === 'worker')?.spec.template.spec.containers ?? []
    const { periodSeconds = 0, failureThreshold = 0 } = pod?.livenessProbe ?? {}
    expect(periodSeconds * failureThreshold).toBeGreaterThan(10 * 60)
  })

  it('names settings that processes read, and secrets that its head makes', () => {
    const [settings] = all('ConfigMap')
    expectRead(Object.keys(settings?.data ?? {}))
    for (const { spec } of deployments) {
      const from = spec.template.spec.containers[0].envFrom
      expect(from.map(({ configMapRef, secretRef }) => configMapRef?.name ?? secretRef?.name)).toEqual([
        settings?.metadata.name,
        'flowstone-secrets',
      ])
    }
    const head = read(`${KUBERNETES}/settings.yaml`)
    expect(head).toContain('create secret generic flowstone-secrets')
    expectRead([...head.matchAll(/--from-literal=(\w+)/g)].flatMap(([, name]) => name ?? []))
  })

  it('has budgets, services and network policies for pods that are there, and ports that they have', () => {
    expect(all('PodDisruptionBudget').map(({ spec }) => podsOf(spec.selector.matchLabels).length)).toEqual([1, 1, 1])
    for (const { spec } of all('Service')) {
      const [target] = podsOf(spec.selector)
      const names = target?.spec.template.spec.containers[0].ports.map(({ name }) => name)
      for (const { targetPort } of spec.ports) expect(names).toContain(targetPort)
    }
    for (const { spec } of all('NetworkPolicy')) {
      const targets = podsOf(spec.podSelector.matchLabels)
      expect(targets.length).toBeGreaterThan(0)
      const ports = targets.flatMap((one) => one.spec.template.spec.containers[0].ports.map((at) => at.containerPort))
      for (const { ports: open } of spec.ingress ?? []) for (const at of open) expect(ports).toContain(at.port)
    }
  })

  it('scales workers by a consumer that they make, one for each place that they have', () => {
    const [one] = all('ScaledObject')
    const worker = deployments.find(({ metadata }) => metadata.name === one?.spec.scaleTargetRef.name)
    expect(worker?.spec.replicas).toBe(one?.spec.minReplicaCount)
    const { options } = optionsOf(worker?.spec.template.spec.containers[0].args ?? [])
    const names = namesOf(all('ConfigMap')[0]?.data.FLOWSTONE_NAMESPACE ?? '')
    const metadata = one?.spec.triggers[0]?.metadata
    expect(metadata?.stream).toBe(names.work(0))
    expect(metadata?.consumer).toBe(names.taskConsumer('weather', 'default', 1))
    expect(metadata?.lagThreshold).toBe(options['--concurrency'])
  })

  it('is set up by a command of the image, in a pod that the namespace lets in', () => {
    const [shown = ''] = /kubectl apply -k[^`]*/.exec(read('docs/deploying.md').replaceAll('\\\n', ' ')) ?? []
    expect(read(`${KUBERNETES}/namespace.yaml`)).toContain('pod-security.kubernetes.io/enforce: restricted')
    expect(shown).not.toMatch(/kubectl .*\brun\b/)
    const [, pod, words = ''] = /exec deployment\/(\w+) -- (.*)/.exec(shown) ?? []
    expect(deployments.map(({ metadata }) => metadata.name)).toContain(pod)
    const [node, main = '', ...args] = words.trim().split(/\s+/)
    const last = read('Dockerfile').split('\nFROM ').at(-1) ?? ''
    expect(last).toContain('WORKDIR /app\n')
    expect(last).toContain(`ENTRYPOINT ${JSON.stringify([node, `/app/${main}`]).replace(',', ', ')}`)
    expect(optionsOf(args)).toEqual({ command: 'setup', options: { '--replicas': '3' } })
  })

  it('has values for NATS with a server that FlowStone is tested with, and that writes to disk at once', () => {
    const values = z
      .looseObject({
        container: z.object({ image: z.object({ tag: z.string() }) }),
        config: z.looseObject({
          cluster: z.object({ enabled: z.literal(true), replicas: z.literal(3) }),
          jetstream: z.looseObject({ merge: z.object({ sync_interval: z.literal('always') }) }),
        }),
      })
      .parse(parse(read(`${KUBERNETES}/nats-values.yaml`)))
    expect(values.container.image.tag).toBe(`${RELEASE_VERSION}-alpine`)
  })
})
