/** Where a gate is answered, in what user code gets. */

interface Address {
  readonly token: string
  readonly callbackUrl: string
}

/**
 * Whoever has the token or the address of a gate may answer it. So both are read by name only: no
 * copy, JSON or log of an object that has them shows them.
 */
export class SecretAddress implements Address {
  readonly #read: () => Address

  constructor(read: () => Address) {
    this.#read = read
  }

  get token(): string {
    return this.#read().token
  }

  get callbackUrl(): string {
    return this.#read().callbackUrl
  }
}
