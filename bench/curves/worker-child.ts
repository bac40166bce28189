/** A worker of the pipeline `curves` in a process of its own. */
import { workInNamespaces } from '../namespaces.ts'
import { curvesPipeline } from './pipeline.ts'

await workInNamespaces((flow) => flow.worker(curvesPipeline))
