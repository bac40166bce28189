/**
 * Measures one point of a curve and prints it as JSON: `node point.ts CURVE X URL`. It has a
 * process of its own, because what an earlier point took from the system would hide what this one
 * takes. It runs with Node's defaults.
 */
import { WORKS } from './works.ts'

const [name = '', x = '', url = ''] = process.argv.slice(2)
const work = Object.entries(WORKS).find(([known]) => known === name)?.[1]
if (!work) throw new Error(`there is no curve ${name}`)
console.log(JSON.stringify(await work(url, Number(x))))
