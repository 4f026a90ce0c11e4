"""How report.html looks, beside what pages share: its charts, on a phone, on paper."""

STYLE = """
ol { margin: 0 0 .8rem; padding-left: 1.3rem; max-width: 65ch; } li { margin: .25rem 0; }
.big { font-size: 1.15rem; } .big b { font-size: 2.6rem; line-height: 1.1; display: block; }
.soft { color: var(--soft); }
.figures td, .figures th[scope=col]:not(:first-child) { text-align: right; white-space: nowrap; }
.figures th { overflow-wrap: normal; min-width: 5rem; }
.headline { width: 100%; max-width: 46rem; margin-bottom: 1.2rem; } .headline th { width: 38%; }
.headline td:nth-child(2) { width: 30%; padding-right: .6rem; }
.headline td:nth-child(4), .n { white-space: nowrap; } .n { font-weight: 600; }
.columns { display: grid; gap: 0 2rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); }
.facts th { min-width: 8rem; }
.bars { table-layout: fixed; width: 100%; max-width: 46rem; } .bars th:first-child { width: 30%; }
.chart { width: 100%; height: auto; max-width: 60rem; }
.matrix { width: 100%; height: auto; font-size: 8.5px; fill: currentColor; display: block; }
.matrix .ground { fill: var(--card); } .matrix .right { fill: var(--right); }
.matrix .wrong { fill: var(--wrong); }
.matrix .count { pointer-events: none; font-size: 8px; fill: var(--count); }
.matrix .strong { fill: var(--strong); }
fieldset { border: 0; margin: 0; padding: 0; min-width: 0; }
legend { padding: 0 1rem 0 0; float: left; }
.view { display: none; margin-top: .6rem; } input + label { margin: 0 1.2rem 0 .3rem; }
#order0:checked ~ .view0, #order1:checked ~ .view1 { display: block; }
.plot { width: 100%; min-width: 36rem; max-width: 54rem; height: auto; background: #fff;
  border-radius: .5rem; }
svg.xception { width: 100%; min-width: 60rem; height: auto; }
@media (max-width: 36rem) { .headline td:nth-child(2) { display: none; }
  .headline th { width: auto; } }
@media print { .view { display: block; break-inside: avoid; }
  input, label, legend { display: none; }
  .plot, svg.xception { min-width: 0; }
  .matrix, .bar { print-color-adjust: exact; } }
"""
