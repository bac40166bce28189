/** A worker of the pipeline `wide` in a process of its own. */
import { workInNamespaces } from './namespaces.ts'
import { widePipeline } from './wide-pipeline.ts'

await workInNamespaces((flow) => flow.worker(widePipeline))
