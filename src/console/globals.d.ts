/** The version of the package, put in by scripts/build-console.mjs. */
declare const VERSION: string
/** The file of the layout's thread, put in by scripts/build-console.mjs. */
declare const LAYOUT_WORKER: string
