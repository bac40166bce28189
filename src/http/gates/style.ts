/** The page's looks, in the page itself: it loads nothing. */
import { createHash } from 'node:crypto'

export const STYLE = `
:root{color-scheme:light dark;--ink:#1c2024;--soft:#5b626b;--line:#d5d9de;--ground:#f5f6f8;--sheet:#fff;--yes:#1a7f37;--no:#b42318;--go:#0b5cad;--on:#fff;--bad:#fdecea}
@media (prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#a4abb5;--line:#3b424b;--ground:#15181c;--sheet:#1e2329;--yes:#4cc26e;--no:#ff8a7a;--go:#7ab8ff;--on:#10141a;--bad:#3b1d1a}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:anywhere}
main{max-width:42rem;margin:0 auto;padding:1.25rem 1rem 3rem}
.sheet{background:var(--sheet);border:1px solid var(--line);border-radius:.75rem;padding:1.25rem;margin-bottom:1rem}
h1{font-size:1.4rem;line-height:1.25;margin:0 0 .75rem;white-space:pre-line}
h2{font-size:1rem;margin:0 0 .5rem;color:var(--soft);font-weight:600}
p{margin:.25rem 0 .75rem}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1rem;margin:0}
.facts dt,.more,.hint{color:var(--soft)}
.facts dd{margin:0}
.hint{font-size:.9rem}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.4rem .5rem .4rem 0;border-top:1px solid var(--line)}
tr:first-child>th,tr:first-child>td{border-top:0}
th{font-weight:600;width:32%;padding-right:1rem}
td ol{margin:0;padding-left:1.4rem}
td>table{border-left:2px solid var(--line)}
td>table>tbody>tr>*{padding-left:.6rem}
form>label:first-of-type{margin-top:0}
.text{white-space:pre-wrap}
label{display:block;font-weight:600;margin:.9rem 0 .25rem}
label span{font-weight:400;color:var(--soft)}
input,textarea{width:100%;font:inherit;color:inherit;background:var(--ground);border:1px solid var(--soft);border-radius:.5rem;padding:.6rem .7rem}
textarea{min-height:5.5rem;resize:vertical}
textarea.code{font-family:ui-monospace,SFMono-Regular,Menlo,monospace;font-size:.95rem}
.row{display:flex;flex-wrap:wrap;gap:.75rem;margin-top:1.1rem}
button{flex:1 1 9rem;min-height:3rem;font:inherit;font-weight:600;border-radius:.5rem;border:2px solid transparent;cursor:pointer;color:var(--on);background:var(--go)}
button[disabled]{display:none}
.yes{background:var(--yes)}
.no{background:transparent;color:var(--no);border-color:var(--no)}
:focus-visible{outline:3px solid var(--go);outline-offset:2px}
.done{border-left:.4rem solid var(--go)}
.done.yes-done{border-left-color:var(--yes)}
.done.no-done,.wrong{border-left:.4rem solid var(--no)}
.wrong{background:var(--bad)}
@media (max-width:30rem){.facts{grid-template-columns:1fr;gap:0}.facts dd{margin-bottom:.5rem}th,td{display:block;width:auto;padding:.3rem 0}td{border-top:0;padding-top:0}}
`

/**
 * No script at all, no picture, no font; this one style; forms only to where the page came from; in
 * nobody's frame.
 */
export const PAGE_CSP = [
  "default-src 'none'",
  `style-src 'sha256-${createHash('sha256').update(STYLE).digest('base64')}'`,
  "form-action 'self'",
  "frame-ancestors 'none'",
  "base-uri 'none'",
].join('; ')
