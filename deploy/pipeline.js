// What the worker of deploy/compose.yml runs. Put your own in its place.
import { asset, pipeline } from 'flowstone'

const cities = asset('cities', { execute: () => ['Lima', 'Oslo', 'Pune', 'Quito'] })

const forecasts = asset('forecasts', {
  dependsOn: [cities],
  scatter: ({ cities }) => cities.map((city) => ({ city })),
  execute: ({ scatterKey }) => `${scatterKey.city}: sunny`,
})

const report = asset('report', {
  dependsOn: [forecasts],
  execute: (_ctx, { forecasts }) => forecasts.map(({ value }) => value).join(', '),
})

export default pipeline('weather', [cities, forecasts, report])
