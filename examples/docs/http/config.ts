import type { ServeOptions } from '../../../src/http/index.ts'

export default {
  rateLimit: { address: [50, 'second'] },
  recordHeaders: ['user-agent'],
  trustProxy: 1,
} satisfies ServeOptions
