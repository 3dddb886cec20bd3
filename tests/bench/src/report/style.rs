//! The style sheets of page and plots: colours are variables, with one set for light and one for
//! dark themes.

/// Variables of the light theme; paper is light too.
pub(super) const LIGHT: &str = "--ground:#ffffff;--ink:#1b1f24;--quiet:#57606a;--faint:#eef1f4;--rule:#d0d7de;--loud:#a40e26;\
    --on-loud:#ffffff;--c0:#0969da;--c1:#bc4c00;--c2:#0f766e;--c3:#8250df;--c4:#6e7781;--c5:#bf3989;--c6:#7d6608;\
    --c7:#24292f;--harness:#c9d1d9;";
/// Variables of the dark theme.
pub(super) const DARK: &str = "--ground:#0f1318;--ink:#e6edf3;--quiet:#9da7b1;--faint:#1a2027;--rule:#39424c;--loud:#ff7b72;\
    --on-loud:#16090a;--c0:#58a6ff;--c1:#f0883e;--c2:#4fd1c0;--c3:#bc8cff;--c4:#8b949e;--c5:#f778ba;--c6:#d4b106;\
    --c7:#e6edf3;--harness:#4a545f;";

/// The variables for all themes.
pub(super) fn theme() -> String {
    format!(
        ":root{{color-scheme:light dark;{LIGHT}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{DARK}}}}}\n"
    )
}

/// The styles of plots.
pub(super) const PLOT: &str =
    ".plot{font:12px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
.plot .ground{fill:var(--ground)}
.plot text{fill:var(--ink)}
.plot text.name{font-size:14px;font-weight:600}
.plot text.about{font-size:11.5px;fill:var(--quiet)}
.plot text.figure{font-variant-numeric:tabular-nums}
.plot .grid{stroke:var(--rule);stroke-width:1}
.plot .whisker{stroke:var(--ink);stroke-width:1.3}
.plot .rim{stroke:var(--ground);stroke-width:3.3;opacity:.75}
.plot .reference{stroke:var(--c1);stroke-width:1.5;stroke-dasharray:5 3}
.plot .line{fill:none;stroke-width:2}
.plot .dashed{stroke-dasharray:6 4}
.plot polygon,.plot circle{stroke:var(--ground);stroke-width:.8}
.plot .harness{fill:var(--harness)}
.plot .ink{fill:var(--ink)}
.plot .c0{fill:var(--c0)}.plot .c1{fill:var(--c1)}.plot .c2{fill:var(--c2)}.plot .c3{fill:var(--c3)}
.plot .c4{fill:var(--c4)}.plot .c5{fill:var(--c5)}.plot .c6{fill:var(--c6)}.plot .c7{fill:var(--c7)}
.plot .c0.line{fill:none;stroke:var(--c0)}.plot .c1.line{fill:none;stroke:var(--c1)}
.plot .c2.line{fill:none;stroke:var(--c2)}.plot .c3.line{fill:none;stroke:var(--c3)}
.plot .c4.line{fill:none;stroke:var(--c4)}.plot .c5.line{fill:none;stroke:var(--c5)}
.plot .c6.line{fill:none;stroke:var(--c6)}.plot .c7.line{fill:none;stroke:var(--c7)}
";

/// The additional styles of the page.
pub(super) const PAGE: &str = "*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);
  font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
main{max-width:1180px;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.8rem;line-height:1.2;margin:0 0 1rem}
h2{font-size:1.3rem;line-height:1.25;margin:2.5rem 0 .5rem;padding-top:.75rem;border-top:1px solid var(--rule)}
p{max-width:46rem;margin:.6rem 0;overflow-wrap:anywhere}
nav{margin:0 0 1rem}
nav a{display:inline-block;margin:0 1rem .25rem 0}
a{color:var(--c0)}
.loud{max-width:none;background:var(--loud);color:var(--on-loud);font-weight:700;padding:.75rem 1rem;
  border-radius:6px;-webkit-print-color-adjust:exact;print-color-adjust:exact}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));gap:2rem 2.5rem;margin:1.5rem 0}
figure{margin:0;break-inside:avoid;max-width:640px}
.plot{display:block;width:100%;height:auto;overflow:visible;-webkit-print-color-adjust:exact;print-color-adjust:exact}
.wide{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--quiet);padding-bottom:.4rem;max-width:min(46rem,calc(100vw - 2rem))}
th,td{text-align:left;padding:.2rem .9rem .2rem .4rem;white-space:nowrap;border-bottom:1px solid var(--rule);
  vertical-align:top}
th{font-weight:600}
th.n,td.n{text-align:right}
tbody th{font-weight:400}
tr:not(.group) th:first-child{position:sticky;left:0;background:var(--ground)}
tr.group th{background:var(--faint);font-weight:600}
tr.group span{display:inline-block;position:sticky;left:.4rem;max-width:calc(100vw - 2.5rem);white-space:normal}
tr.ikenat th,tr.ikenat td{color:var(--c0);font-weight:600}
.conditions td{white-space:normal;overflow-wrap:anywhere}
@media (max-width:40rem){main{padding:1rem .75rem 3rem}h1{font-size:1.5rem}}
@media print{body{font-size:10pt}main{max-width:none;padding:0}nav{display:none}.wide{overflow:visible}
  tr:not(.group) th:first-child{position:static}
  table{font-size:7.5pt}tr{break-inside:avoid}.plots{grid-template-columns:1fr 1fr;gap:1rem}}
";
