/** A worker of the pipeline `three` in a process of its own. */
import { workInNamespaces } from './namespaces.ts'
import { threeAssets } from './three-assets.ts'

await workInNamespaces((flow) => flow.worker(threeAssets))
