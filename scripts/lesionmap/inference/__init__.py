"""The network over a whole slide: its probability map (METHOD.md §5).

- ``map_slide``: map one slide and record how
- ``settings``: how slides are mapped
"""
