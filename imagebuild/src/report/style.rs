// SPDX-License-Identifier: Apache-2.0
//! The look of the page: fonts of the reader's system, light and dark as the system is, one column on a phone, and black
//! on white on paper.

/// The style sheet.
pub const STYLE: &str = "\
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --soft: #59636e; --line: #d5dae0; --tint: #f4f6f8;
  --root: #c3d7ee; --boot: #f3d9b1; --system: #d3e4c8; --data: #dcd3e6; --mark: #8a5200; --marked: #fff4df }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #dde3ea; --soft: #96a1ad; --line: #323a44;
  --tint: #1c2229; --root: #2b4664; --boot: #5d4622; --system: #35502c; --data: #47385c; --mark: #f0b860;
  --marked: #2c2415 } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; -webkit-text-size-adjust: 100% }
header { border-bottom: 2px solid var(--ink); padding-bottom: .75rem }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere }
header p { margin: .25rem 0 0; color: var(--soft) }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line) }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem }
p { margin: .5rem 0; max-width: 44rem }
nav { margin-top: 1rem; font-size: .9rem }
nav a { display: inline-block; padding: .25rem .9rem .25rem 0 }
a { color: inherit; text-underline-offset: .2em }
code, pre, .hex { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .85em }
.hex { overflow-wrap: anywhere; line-height: 1.35 }
pre { background: var(--tint); border: 1px solid var(--line); border-radius: 4px; padding: .6rem .8rem; overflow-x: auto;
  line-height: 1.5 }
.mark { background: var(--marked); border-left: 4px solid var(--mark); padding: .5rem .8rem; margin: 1rem 0 }
table { border-collapse: collapse; width: 100%; font-size: .92rem; line-height: 1.4 }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line) }
th { font-weight: 600; color: var(--soft); font-size: .85rem }
tfoot td { font-weight: 600 }
small { color: var(--soft) }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
th:last-child, td:last-child { padding-right: 0 }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .35rem 1.25rem; margin: 1rem 0 }
dt { color: var(--soft) }
dd { margin: 0; overflow-wrap: anywhere }
.disk { display: grid; gap: 1.5rem; align-items: start }
.disk svg { display: block; width: 100%; max-width: 23rem; height: auto; font: 11px system-ui, sans-serif;
  fill: var(--ink) }
.disk .head { font-weight: 600; font-size: 12px }
.disk .size { text-anchor: end }
.disk rect, .disk path { stroke: var(--ink); stroke-width: .8 }
.disk .new { stroke-dasharray: 4 2 }
.disk .link { fill: var(--tint); stroke: none }
.root { fill: var(--root); background: var(--root) }
.boot { fill: var(--boot); background: var(--boot) }
.system { fill: var(--system); background: var(--system) }
.data { fill: var(--data); background: var(--data) }
.key { display: inline-block; width: .8em; height: .8em; margin-right: .4em; border: 1px solid var(--soft) }
.bar { display: block; height: .45rem; margin-top: .25rem; background: var(--tint) }
.bar i { display: block; height: 100%; background: var(--ink); opacity: .65 }
.packages { columns: 15rem; column-gap: 2rem; list-style: none; margin: 0; padding: 0; font-size: .88rem }
.packages li { break-inside: avoid; padding: .12rem 0; overflow-wrap: anywhere }
.packages span { color: var(--soft) }
footer { margin-top: 3rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .85rem }
@media (min-width: 52rem) { .disk { grid-template-columns: 23rem minmax(0, 1fr) } }
@media (max-width: 40rem) {
  dl { grid-template-columns: minmax(0, 1fr); gap: 0 } dd { margin-bottom: .6rem }
  .wide tr { display: grid; border-bottom: 1px solid var(--line); padding: .35rem 0 }
  .wide td, .wide th { border: 0; padding: .05rem 0 } .wide td:first-child { grid-column: 1 / -1 }
  .wide th:first-child { display: none }
  .c2 tr { grid-template-columns: repeat(2, 1fr) } .c3 tr { grid-template-columns: repeat(3, 1fr) }
  .c4 tr { grid-template-columns: 1fr 1.6fr 1.6fr 1.2fr }
  .stack thead { position: absolute; left: -999rem }
  .stack tr { display: block; border-bottom: 1px solid var(--line); padding: .4rem 0 }
  .stack td { display: block; border: 0; padding: .05rem 0; text-align: left }
  .stack td[data-of]::before { content: attr(data-of) ' '; color: var(--soft) }
}
@media print {
  :root { color-scheme: light; --paper: #fff; --ink: #000; --soft: #444; --line: #bbb; --tint: #f4f4f4; --root: #c3d7ee;
    --boot: #f3d9b1; --system: #d3e4c8; --data: #dcd3e6; --mark: #000; --marked: #fff }
  body { max-width: none; padding: 0; font-size: 9.5pt } nav { display: none }
  h2, h3 { break-after: avoid } tr, svg, pre, .mark { break-inside: avoid }
  .disk, .key, .bar, .bar i { print-color-adjust: exact; -webkit-print-color-adjust: exact }
}
";
