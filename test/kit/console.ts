/** Builds the console for tests that open it in a browser. Once. */
const BUILD = new URL('../../scripts/build-console.mjs', import.meta.url).href

export default async function setup(): Promise<void> {
  const { buildConsole }: { buildConsole: () => Promise<string> } = await import(BUILD)
  await buildConsole()
}
