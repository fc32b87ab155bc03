"""Experiments: variants of the settings, trained over folds and seeds on the same tile stores, and compared.

- ``variants``: what the config's section `experiments` asks for
- ``folds``: which slides are held out together
- ``table``: compare the variants
- ``curves``: plots
- ``page``: the page that shows all of it
"""
