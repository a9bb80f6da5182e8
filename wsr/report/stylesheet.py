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
main, header, footer { max-width: 1240px; margin: 0 auto; padding: 0 28px; }
header { padding-top: 34px; }
h1 { font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.02em; margin: 0 0 4px; text-wrap: balance; }
h2 { font-size: 1.45rem; line-height: 1.25; letter-spacing: -0.012em; margin: 0; }
h3 { font-size: 1rem; line-height: 1.35; margin: 0 0 10px; }
p { margin: 0 0 12px; max-width: 72ch; text-wrap: pretty; }
a { color: inherit; text-decoration-color: var(--wsr-muted); text-underline-offset: 3px; }
a:hover { color: var(--accent); text-decoration-color: currentColor; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; border-radius: 3px; }
#findings:focus { outline: none; }
.skip { position: absolute; left: 28px; top: -100px; padding: 6px 14px; background: var(--paper); z-index: 1; }
.skip:focus { top: 8px; }
.muted, .caption { color: var(--wsr-muted); }
.caption { font-size: 0.875rem; line-height: 1.5; margin: 8px 0 0; max-width: 84ch; }
.label { font-size: 0.78rem; font-weight: 600; letter-spacing: 0.02em; color: var(--wsr-muted); }

.run { margin-top: 44px; }
.facts {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 14px 32px; margin: 14px 0 0;
}
.facts dd { margin: 0; font-size: 0.92rem; line-height: 1.45; }
.facts .wide { grid-column: 1 / -1; }

.findings { padding: 12px 0 0; }
.findings h2 { font-size: 1rem; color: var(--wsr-muted); font-weight: 600; letter-spacing: 0; margin-bottom: 6px; }
.summary { margin: 0; padding: 0; list-style: none; }
.summary li {
  display: flex; gap: 4px 12px; align-items: baseline; text-wrap: pretty; line-height: 1.42; padding: 5px 0;
}
.summary .verdict { flex: none; width: 122px; }
.summary a { font-size: 0.8rem; color: var(--wsr-muted); padding: 2px 5px; }
.story { margin: 14px 0 0; }
.story figure { max-width: 440px; }
.index { margin-top: 22px; }
.index table { width: 100%; table-layout: fixed; line-height: 1.45; }
.index th, .index td { padding: 7px 16px 7px 0; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.index th:first-child { width: 30%; }
.index th:nth-child(2) { width: 29%; }
.index th:nth-child(4) { width: 136px; }
.index.own th:first-child { width: 34%; }
.index.own th:nth-child(2) { width: auto; }
.index tbody th { border-bottom-color: var(--line); font-weight: 400; vertical-align: baseline; }
.index a { display: inline-block; max-width: 100%; overflow: hidden; text-overflow: ellipsis; vertical-align: bottom; }
.index a:focus-visible { outline-offset: -2px; }
.up { margin-left: auto; font-size: 0.86rem; color: var(--wsr-muted); }

.verdict {
  font-size: 0.86rem; font-weight: 600; white-space: nowrap;
  display: inline-flex; gap: 7px; align-items: baseline;
}
.verdict svg { width: 15px; height: 15px; flex: none; align-self: center; }
.holds { color: var(--good); } .holds-in-part { color: var(--fair); }
.refuted { color: var(--bad); } .no-effect, .open, .not-tested { color: var(--none); }

section { padding: 44px 0 4px; margin-top: 36px; border-top: 1px solid var(--line); scroll-margin-top: 8px; }
.heading { display: flex; flex-wrap: wrap; gap: 4px 18px; align-items: baseline; margin-bottom: 6px; }
.question { color: var(--wsr-muted); margin-bottom: 14px; }
.headline { font-size: 1.14rem; line-height: 1.45; margin-bottom: 18px; }
.beside {
  display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); margin: 0 0 22px;
  background: var(--soft); border-radius: 10px;
}
.beside > div { padding: 14px 20px 15px; }
.beside > div + div { border-left: 1px solid var(--line); }
.beside dd { margin: 2px 0 0; line-height: 1.5; }
.beside dd + dd { margin-top: 5px; }

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
th, td {
  padding: 6px 20px 6px 0; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap;
  vertical-align: baseline;
}
th { font-weight: 600; border-bottom-color: var(--wsr-muted); vertical-align: bottom; white-space: normal; }
.prose { white-space: normal; min-width: 16em; max-width: 34em; }
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
  .facts { grid-template-columns: minmax(0, 1fr); }
  .summary li { flex-direction: column; padding: 9px 0; }
  .skip { left: 16px; }
  .up { display: none; }
  .beside { grid-template-columns: minmax(0, 1fr); }
  .beside > div + div { border-left: 0; border-top: 1px solid var(--line); }
  .beside > div { padding: 12px 16px 13px; }
  section { padding-top: 30px; margin-top: 26px; }
}
@media screen and (max-width: 900px) {
  .index thead { position: absolute; clip-path: inset(50%); height: 1px; overflow: hidden; }
  .index table, .index tbody, .index tr { display: block; }
  .index tr { padding: 9px 0; border-bottom: 1px solid var(--line); }
  .index th, .index td, .index th:first-child { display: block; width: auto; white-space: normal; }
  .index th, .index td { border: 0; padding: 1px 0; }
  .index a { display: inline; }
  .index .muted::before { content: "The paper: "; }
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
  .up, .skip { display: none; }
  .index th, .index td { white-space: normal; }
  .index a { text-decoration: none; display: inline; white-space: normal; }
  .index .verdict { font-size: 8.5pt; }
  .scroll, details.table > .scroll { overflow: visible; max-height: none; }
  details::details-content { content-visibility: visible; height: auto; }
  table { font-size: 8.5pt; }
  th, td { white-space: normal; padding-right: 10px; overflow-wrap: anywhere; }
  .prose { min-width: 10em; }
  .figures { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 8px 28px; }
  h2, h3, .question, .beside, tr { break-inside: avoid; break-after: avoid; }
  .command { break-inside: avoid; }
}
"""
