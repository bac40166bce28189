// Reads a report of vitest's json reporter and prints `N passed, N failed`, which is what the CI
// looks for.
import { readFileSync } from 'node:fs'

const report = JSON.parse(readFileSync(process.argv[2], 'utf8'))
// A file that cannot even be loaded has no tests that could fail, but it failed.
const brokenFiles = report.testResults.filter(
  (file) => file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed'),
)
console.log(`${report.numPassedTests} passed, ${report.numFailedTests + brokenFiles.length} failed`)
