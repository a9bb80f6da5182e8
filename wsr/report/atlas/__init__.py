"""The page of an atlas: one offline HTML file that stays quick with ten thousand models.

page.py    the file: its data, text and scripts
assets/    its script and style; D3 is that of the explorer
"""
