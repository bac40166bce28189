import { equal } from 'node:assert/strict'
import { canonicalKey, normalizeKey, sameKey, scatterKeyHash } from '../../../src/index.ts'

// #region keys
console.log(canonicalKey({ path: '/a', n: 1 })) // {"n":1,"path":"/a"}
console.log(scatterKeyHash({ path: '/a', n: 1 })) // 87d5b8d0ecc58ccc
console.log(sameKey({ a: 1, b: 2 }, { b: 2, a: 1 })) // true
console.log(normalizeKey({ at: new Date(0) })) // { at: '1970-01-01T00:00:00.000Z' }
// #endregion
equal(canonicalKey({ path: '/a', n: 1 }), '{"n":1,"path":"/a"}')
equal(scatterKeyHash({ path: '/a', n: 1 }), '87d5b8d0ecc58ccc')
equal(sameKey({ a: 1, b: 2 }, { b: 2, a: 1 }), true)
