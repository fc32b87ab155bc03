"""The network and how it is run; neither training nor inference (METHOD.md §2).

- ``model``: ResNet feature-pyramid network
- ``settings``: which network, without torch
- ``backbone``: pretrained weights
- ``model_file``: save and load a model
- ``forward``: device, precision, logits
- ``region_pass``: a region's tiles and low view, fused
- ``batch_size``: tiles that fit the memory
- ``resources``: arithmetic and memory of a pass, without torch
- ``thread_pool``: a pass a thread, the same bytes for any number of them
"""
