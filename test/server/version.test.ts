import { expect, it } from 'vitest'
import { compareVersions, MIN_SERVER_VERSION } from '../../streams/version.ts'

it('versions sort by number, a pre-release before its release, and nonsense before everything', () => {
  const sorted = ['nonsense', '2.9.25', '2.14.0-RC.2', '2.14.0-RC.10', '2.14.0', 'v2.14.1', '2.15.1', '10.0.0']
  expect([...sorted].reverse().sort(compareVersions)).toEqual(sorted)
})

it('a v in front and build metadata make no difference', () => {
  expect(compareVersions('v2.15.1', '2.15.1')).toBe(0)
  expect(compareVersions('2.15.1+dirty', '2.15.1')).toBe(0)
})

it('a pre-release of the minimum is too old', () => {
  expect(compareVersions(`${MIN_SERVER_VERSION}-RC.1`, MIN_SERVER_VERSION)).toBeLessThan(0)
})
