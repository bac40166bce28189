// #region program
import { asset, pipeline } from '../../../src/index.ts'

const cities = asset('cities', { execute: () => ['Lima', 'Oslo', 'Pune', 'Quito'] })

const forecasts = asset('forecasts', {
  dependsOn: [cities],
  scatter: ({ cities }) => cities.map((city) => ({ city })), // one instance for each city
  execute: ({ scatterKey }) => `${scatterKey.city}: sunny`,
  scatterOptions: { maxConcurrent: 20, rateLimit: [10, 'second'], retry: { maxAttempts: 5 } },
})

const report = asset('report', {
  dependsOn: [forecasts],
  execute: (_ctx, { forecasts }) => forecasts.map(({ value }) => value).join(', '),
})

export default pipeline('weather', [cities, forecasts, report])
// #endregion

// prints: "Lima: sunny, Oslo: sunny, Pune: sunny, Quito: sunny"
