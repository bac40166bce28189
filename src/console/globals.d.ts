/** The version of the package, put in by scripts/build-console.mjs. */
declare const VERSION: string
