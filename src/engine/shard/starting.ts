/**
 * Runs whose request is on its way to the log. Decisions are carried out side by side, and a
 * request may take longer, because something is looked up first. A cancel that stood before the
 * request would count for nothing, and no second one could be stored.
 */
export class Starting {
  readonly #runs = new Map<string, Promise<void>>()

  /** Carries out what starts the run. */
  async begin(run: string, start: () => Promise<void>): Promise<void> {
    const started = start()
    this.#runs.set(run, started)
    try {
      await started
    } finally {
      if (this.#runs.get(run) === started) this.#runs.delete(run)
    }
  }

  /** Resolves when nothing that starts the run is on its way. Rejects when that fails. */
  async begun(run: string): Promise<void> {
    await this.#runs.get(run)
  }
}
