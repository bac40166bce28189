// Draws a chart (see bench/curves/chart.ts): JSON on standard input, SVG on standard output.
import { text } from 'node:stream/consumers'
import { init } from 'echarts'

const { width, height, option } = JSON.parse(await text(process.stdin))
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 2 })
for (const { axisLabel } of [...option.xAxis, ...option.yAxis]) axisLabel.formatter = (value) => short.format(value)
const chart = init(null, null, { renderer: 'svg', ssr: true, width, height })
chart.setOption(option)
process.stdout.write(`${chart.renderToSVGString()}\n`)
chart.dispose()
