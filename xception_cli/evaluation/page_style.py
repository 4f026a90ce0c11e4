"""How report.html looks: light and dark, on a phone, on paper."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5f6670; --paper: #fff; --card: #f4f5f7;
  --line: #dde0e4; --bar: #5b8ed6; --right: #2b6cb0; --wrong: #d9620f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a3a9b1; --paper: #16181b;
  --card: #212429; --line: #34383e; --bar: #4f7fc4; --right: #3f86cc; --wrong: #f08a3c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
main { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.3rem; line-height: 1.2; margin: 0 0 .6rem; color: var(--soft); }
h2 { font-size: 1.15rem; margin: 1.2rem 0 .3rem; }
p, ol { margin: 0 0 .8rem; max-width: 65ch; }
ol { padding-left: 1.3rem; } li { margin: .25rem 0; }
section { border-top: 1px solid var(--line); margin-top: 1.8rem; }
.big { font-size: 1.15rem; } .big b { font-size: 2.6rem; line-height: 1.1; display: block; }
.soft { color: var(--soft); }
code { font-size: .9em; background: var(--card); border-radius: .25rem; padding: .05rem .3rem; }
.scroll { overflow-x: auto; margin-bottom: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 500; padding: .15rem 1rem .15rem 0; vertical-align: top; }
th[scope=col] { color: var(--soft); font-size: .85rem; }
td { padding: .15rem 1rem .15rem 0; }
.figures td, .figures th[scope=col]:not(:first-child) { text-align: right; white-space: nowrap; }
.figures th { overflow-wrap: normal; min-width: 5rem; }
.headline { width: 100%; max-width: 46rem; } .headline th { width: 32%; }
.headline td:nth-child(2) { width: 36%; padding-right: .6rem; }
.headline td:nth-child(4) { white-space: nowrap; }
.columns { display: grid; gap: 0 2rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); }
.bars { table-layout: fixed; width: 100%; max-width: 46rem; } .bars th[scope=row] { width: 30%; }
.bar { display: inline-block; height: .7rem; background: var(--bar); border-radius: 2px;
  min-width: 1px; } .n { white-space: nowrap; font-weight: 600; }
.chart { width: 100%; height: auto; max-width: 60rem; }
.matrix { width: 100%; height: auto; font-size: 8.5px; fill: currentColor; display: block; }
.matrix .ground { fill: var(--card); } .matrix .right { fill: var(--right); }
.matrix .wrong { fill: var(--wrong); }
.count { pointer-events: none; font-size: 8px; } .strong { fill: #fff; }
.view { display: none; margin-top: .6rem; } input + label { margin: 0 1.2rem 0 .3rem; }
#order0:checked ~ .view0, #order1:checked ~ .view1 { display: block; }
.cards { display: grid; gap: .8rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); }
figure { margin: 0; background: var(--card); border-radius: .5rem; overflow: hidden;
  break-inside: avoid; }
.pictures { display: flex; gap: 2px; }
.pictures > * { flex: 1 1 0; min-width: 0; height: 9rem; object-fit: contain; width: auto; }
.none { padding: .5rem .7rem; color: var(--soft); font-size: .85rem; }
figcaption { padding: .5rem .7rem .7rem; font-size: .85rem; color: var(--soft); line-height: 1.35; }
figcaption b { color: var(--ink); font-weight: 600; }
.plot { width: 100%; max-width: 54rem; height: auto; background: #fff; border-radius: .5rem; }
@media (max-width: 36rem) { .headline td:nth-child(2) { display: none; } }
@media print { .view { display: block; } input, label { display: none; } }
"""
