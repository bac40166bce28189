// Builds dist/ from nothing, so that a file deleted from the sources is not published for ever.
import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'

rmSync('dist', { recursive: true, force: true })
// The file behind `tsc` is run with this Node: a .cmd shim on Windows cannot be spawned without a shell.
const result = spawnSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json'], {
  stdio: 'inherit',
})
process.exit(result.status ?? 1)
