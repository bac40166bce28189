/** Imports an archive in a process of its own. */
import { begin, tell } from './child.ts'

const { flow, settings } = await begin()
const { archive = '' } = settings
tell('ready')
tell('imported', await flow.import(archive))
