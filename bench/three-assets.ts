/** The pipeline of the bench `runs`: three plain assets in a row that do nothing. */
import { asset, pipeline } from '../src/index.ts'
import { instanceValue } from './payload.ts'

export const first = asset('first', { execute: () => instanceValue(1) })
const second = asset('second', { dependsOn: [first], execute: () => instanceValue(2) })
export const third = asset('third', { dependsOn: [second], execute: () => instanceValue(3) })
export const threeAssets = pipeline('three', [first, second, third])
