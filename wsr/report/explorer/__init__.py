"""The explorer: one offline page in which a reader walks through a region.

explore.py    scores the points that the page needs, and writes it
pareto.py     fronts between datasets, and the page with a front in it
content.py    what the page knows, as JSON-able data
page.py       the page: data, styles and scripts in one file that asks for nothing
assets/       its scripts and styles: polynomial.js (numbers), coordinates.js (places and coefficients), figures.js,
              explorer.js (state and texts), explorer.css; and D3 with its licence (make d3 fetches it again)
"""
