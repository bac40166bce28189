/** Values in error messages: see streams/shown.ts, which all layers may use. */
export { shown } from '../../streams/shown.ts'
