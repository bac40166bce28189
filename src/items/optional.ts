/** Packages that only some readers need: loaded when such a reader begins. */
import { InvalidError, messageOf } from '../../streams/errors.ts'

/** What `load` imports. Throws InvalidError that says what to install. */
export async function optionalPackage<T>(name: string, reader: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load()
  } catch (cause) {
    const missing = cause instanceof Error && 'code' in cause && cause.code === 'ERR_MODULE_NOT_FOUND'
    const why = missing ? 'which is not installed here' : `which cannot be loaded (${messageOf(cause)})`
    throw new InvalidError(`${reader} needs the package ${name}, ${why}: npm install ${name}`, { cause })
  }
}
