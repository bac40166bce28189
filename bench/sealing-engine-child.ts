/** An engine that seals runs ten seconds after their end, in a process of its own. */
import { workInNamespaces } from './namespaces.ts'

await workInNamespaces(async (flow) => (await flow.engine({ sealAfter: '10s' })).active)
