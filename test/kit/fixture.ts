import { afterAll, beforeAll } from 'vitest'
import { type TestServer, type TestServerOptions, testServer } from './server.ts'

/**
 * The NATS server of a test file, or of one `describe`: `const server = useServer()` at its head.
 * It runs from before the first test until all hooks after the last one have ended.
 */
export function useServer(options: TestServerOptions = {}): Pick<TestServer, 'url'> {
  let server: TestServer | undefined
  beforeAll(async () => {
    server = await testServer(options)
  })
  afterAll(() => server?.stop())
  return {
    get url() {
      if (!server) throw new Error('the server runs only while hooks and tests run; read its url there')
      return server.url
    },
  }
}
