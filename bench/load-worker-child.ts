/** A worker of the pipeline `load` in a process of its own. */
import { LOAD_SETTINGS, loadPipeline } from './load-pipeline.ts'
import { workInNamespaces } from './namespaces.ts'

await workInNamespaces((flow) => flow.worker(loadPipeline), LOAD_SETTINGS)
