/** An engine in a process of its own, as `flowstone engine` is. */
import { workInNamespaces } from './namespaces.ts'

await workInNamespaces(async (flow) => (await flow.engine()).active)
