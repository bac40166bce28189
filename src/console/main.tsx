/** The web console: begins when the page is there. */
import { render } from 'preact'
import { App } from './shell/app.tsx'
import { begin } from './state/session.ts'

const root = document.getElementById('app')
if (root) render(<App />, root)
void begin()
