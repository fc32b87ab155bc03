"""The network and its forward pass, used by training and inference (METHOD.md §2).

- ``model``: ResNet feature-pyramid network
- ``top_down``: its top-down path, a linear map
- ``settings``: the config section ``model``; needs no torch
- ``backbone``: pretrained weights
- ``model_file``: save and load a model
- ``onnx_export``: the model for inference engines
- ``self_check``: picture on which engines are compared with the network; needs no torch
- ``forward``: device, precision, logits
- ``logits``: means of probabilities, in logits
- ``region_pass``: maps of a region's tiles and low view, and their fusion
- ``batch_size``: number of tiles that fit the memory
- ``resources``: operations, time and memory of a pass, as measured on this machine; needs no torch itself
- ``thread_pool``: one pass per thread, with identical results for any number of threads
"""
