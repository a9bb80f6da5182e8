"""How a page looks: on a desk or a phone, in light or dark, and on paper."""

# A string and not a file of its own, so that every installation holds it.
STYLESHEET = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1f2328; --wsr-muted: #636c76; --wsr-grid: #d5dae1; --soft: #f5f6f8; --line: #e3e6ea;
  --accent: #0a5fa5; --good: #0b7a55; --fair: #8f5b00; --bad: #b93a0e; --none: #636c76;
  --wsr-1: #0072b2; --wsr-2: #d55e00; --wsr-3: #009e73; --wsr-4: #c0659a; --wsr-5: #c98a00; --wsr-6: #3a9fdc;
  --wsr-7: #998c00; --wsr-8: #777777;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --ink: #e4e7eb; --wsr-muted: #9aa4af; --wsr-grid: #3a414a; --soft: #1c2026; --line: #2c323a;
    --accent: #6db7f2; --good: #45c796; --fair: #e3b341; --bad: #ff8a5c; --none: #9aa4af;
    --wsr-1: #4aa8e8; --wsr-2: #f0782d; --wsr-3: #1fbf92; --wsr-4: #dd93bd; --wsr-5: #e9ab1f; --wsr-6: #7cc9f5;
    --wsr-7: #d8cc45; --wsr-8: #9b9b9b;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: break-word;
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
}
main, header, footer { max-width: 1080px; margin: 0 auto; padding: 0 28px; }
header { padding-top: 56px; }
h1 {
  font-size: 2.1rem; line-height: 1.2; letter-spacing: -0.02em; margin: 0 0 20px; max-width: 26em; text-wrap: balance;
}
h2 { font-size: 1.45rem; line-height: 1.25; letter-spacing: -0.012em; margin: 0; }
h3 { font-size: 1rem; line-height: 1.35; margin: 0 0 10px; }
p { margin: 0 0 12px; max-width: 72ch; text-wrap: pretty; }
a { color: inherit; text-decoration-color: var(--wsr-muted); text-underline-offset: 3px; }
a:hover { color: var(--accent); text-decoration-color: currentColor; }
.muted, .caption { color: var(--wsr-muted); }
.caption { font-size: 0.875rem; line-height: 1.5; margin: 8px 0 0; max-width: 64ch; }
.label { font-size: 0.78rem; font-weight: 600; letter-spacing: 0.02em; color: var(--wsr-muted); }

.facts {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 14px 28px;
  margin: 0; padding: 18px 0; border-top: 1px solid var(--line); border-bottom: 1px solid var(--line);
}
.facts dd { margin: 0; font-size: 0.92rem; line-height: 1.45; }
.facts .wide { grid-column: 1 / -1; }

.findings { padding: 36px 0 8px; }
.findings h2 { margin-bottom: 16px; }
.summary { margin: 0 0 32px; padding: 0; list-style: none; max-width: 54rem; }
.summary li {
  text-wrap: pretty; font-size: 1.16rem; line-height: 1.5; margin-bottom: 10px; padding-left: 20px; position: relative;
}
.summary li::before {
  content: ""; position: absolute; left: 0; top: 0.62em; width: 7px; height: 7px; border-radius: 50%;
  background: var(--accent);
}
.claims { list-style: none; margin: 0; padding: 0; border-top: 1px solid var(--line); }
.claims li {
  display: grid; grid-template-columns: 130px minmax(0, 3fr) minmax(0, 4fr) minmax(0, 5fr); gap: 4px 20px;
  align-items: baseline;
  padding: 11px 0; border-bottom: 1px solid var(--line);
}
.claims li:last-child { border-bottom: 0; padding-bottom: 0; }
.claims.own li { grid-template-columns: minmax(0, 3fr) minmax(0, 9fr); }
.claims a { font-weight: 600; }
.claims .muted { font-size: 0.9rem; }
.claims .label { padding: 6px 0; }
.up { margin-left: auto; font-size: 0.86rem; color: var(--wsr-muted); }

.verdict {
  font-size: 0.86rem; font-weight: 600; white-space: nowrap;
  display: inline-flex; gap: 7px; align-items: baseline;
}
.verdict svg { width: 15px; height: 15px; flex: none; align-self: center; }
.holds { color: var(--good); } .partly { color: var(--fair); }
.does-not-hold { color: var(--bad); } .not-settled, .not-tested { color: var(--none); }

section { padding: 44px 0 4px; margin-top: 36px; border-top: 1px solid var(--line); scroll-margin-top: 8px; }
.heading { display: flex; flex-wrap: wrap; gap: 4px 18px; align-items: baseline; margin-bottom: 6px; }
.question { font-size: 1.08rem; color: var(--wsr-muted); margin-bottom: 20px; }
.beside {
  display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); margin: 0 0 22px;
  background: var(--soft); border-radius: 10px;
}
.beside > div { padding: 14px 20px 15px; }
.beside > div + div { border-left: 1px solid var(--line); }
.beside dd { margin: 2px 0 0; }
.beside .measured dd { font-weight: 500; }

.figures {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr)); gap: 10px 44px;
  margin: 26px 0 4px;
}
figure {
  margin: 0; min-width: 0; max-width: 560px; break-inside: avoid;
  display: grid; grid-row: span 3; grid-template-rows: subgrid; row-gap: 10px;
}
figure h3 { margin: 0; align-self: end; }
figure svg { display: block; width: 100%; height: auto; overflow: visible; }
figure .mark { cursor: default; }
figure path.mark:hover, figure use.mark:hover { filter: brightness(1.15); stroke: var(--ink) !important; }
figcaption { padding-bottom: 22px; }
figcaption .caption { margin: 0; }

.table { margin: 26px 0; }
.scroll { overflow-x: auto; max-width: 100%; }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; font-size: 0.9rem; line-height: 1.4; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 22px 6px 0; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; border-bottom-color: var(--wsr-muted); vertical-align: bottom; }
th:last-child, td:last-child { padding-right: 0; }
.number { text-align: right; }
details.table > .scroll { max-height: 26rem; overflow: auto; margin-top: 10px; }
summary { cursor: pointer; font-weight: 600; padding: 6px 0; }
summary .muted { font-weight: 400; }

.command { margin: 22px 0 0; }
pre {
  margin: 4px 0 0; padding: 12px 16px; background: var(--soft); border-radius: 8px;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
.word { display: inline-block; max-width: 100%; }
code { font: 0.86rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.facts pre { padding: 8px 12px; }
footer { padding-top: 36px; padding-bottom: 56px; }

@media (max-width: 640px) {
  main, header, footer { padding-left: 16px; padding-right: 16px; }
  header { padding-top: 32px; }
  h1 { font-size: 1.6rem; }
  .facts { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 12px 16px; }
  .summary li { font-size: 1.05rem; }
  .claims li, .claims.own li { grid-template-columns: minmax(0, 1fr); padding: 12px 0 13px; }
  .claims .label, .up { display: none; }
  .claims .muted::before { content: "The paper: "; }
  .beside { grid-template-columns: minmax(0, 1fr); }
  .beside > div + div { border-left: 0; border-top: 1px solid var(--line); }
  .beside > div { padding: 12px 16px 13px; }
  section { padding-top: 30px; margin-top: 26px; }
}
@media print {
  :root {
    color-scheme: light;
    --paper: #ffffff; --ink: #000000; --wsr-muted: #555555; --wsr-grid: #cccccc; --soft: #f5f5f5; --line: #cccccc;
    --accent: #0a5fa5; --good: #0b7a55; --fair: #8f5b00; --bad: #b93a0e; --none: #555555;
    --wsr-1: #0072b2; --wsr-2: #d55e00; --wsr-3: #009e73; --wsr-4: #c0659a; --wsr-5: #c98a00; --wsr-6: #3a9fdc;
  }
  body { font-size: 10.5pt; }
  main, header, footer { max-width: none; padding-left: 0; padding-right: 0; }
  header { padding-top: 0; }
  .up { display: none; }
  .scroll, details.table > .scroll { overflow: visible; max-height: none; }
  details::details-content { content-visibility: visible; height: auto; }
  th, td { white-space: normal; padding-right: 10px; }
  .figures { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 8px 28px; }
  h2, h3, .question, .beside, tr { break-inside: avoid; break-after: avoid; }
  .command { break-inside: avoid; }
}
"""
