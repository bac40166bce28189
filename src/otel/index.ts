/** `flowstone/otel`: traces and metrics by OpenTelemetry. Needs the package @opentelemetry/api. */

export { type Instrumentation, type InstrumentOptions, instrument } from './instrument.ts'
