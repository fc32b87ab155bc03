"""The report's pages and the model card.

- ``render``: write all pages
- ``inputs``: the files that the pages are made from
- ``model_card``: the card of a model file, as Markdown and for the page
- ``templating``: what all HTML pages share
"""
