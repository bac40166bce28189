/** Packages that only some readers need: loaded when such a reader begins. */
import { InvalidError, messageOf } from '../../streams/errors.ts'

/**
 * The package. Throws InvalidError that says what to install. A bundler does not see the name, so
 * it neither needs the package nor takes it in: it is looked for at run time.
 */
export async function optionalPackage<T>(name: string, reader: string): Promise<T> {
  try {
    return await import(name)
  } catch (cause) {
    const missing = cause instanceof Error && 'code' in cause && cause.code === 'ERR_MODULE_NOT_FOUND'
    const why = missing ? 'which is not installed here' : `which cannot be loaded (${messageOf(cause)})`
    throw new InvalidError(`${reader} needs the package ${name}, ${why}: npm install ${name}`, { cause })
  }
}
