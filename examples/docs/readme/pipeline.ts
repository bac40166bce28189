import { asset, pipeline } from '../../../src/index.ts'

const cities = asset('cities', { execute: () => ['Lima', 'Oslo', 'Pune', 'Wien'] })

const weather = asset('weather', {
  dependsOn: [cities],
  // One instance for each city: at most 20 at a time and 10 started a second, over all workers.
  scatter: ({ cities }) => cities.map((city) => ({ city })),
  scatterOptions: { maxConcurrent: 20, rateLimit: [10, 'second'], retry: { maxAttempts: 3 } },
  execute: ({ scatterKey }) => `${scatterKey.city} is sunny`,
})

const report = asset('report', {
  dependsOn: [weather],
  execute: (_ctx, { weather }) => weather.map(({ value }) => value).join(', '),
})

export default pipeline('forecast', [cities, weather, report])

// prints: "Lima is sunny, Oslo is sunny, Pune is sunny, Wien is sunny"
