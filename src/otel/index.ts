/** `flowstone/otel`: traces by OpenTelemetry. Needs the package @opentelemetry/api. */

export { type Instrumentation, type InstrumentOptions, instrument } from './instrument.ts'
