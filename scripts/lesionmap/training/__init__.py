"""Train the network (METHOD.md §3–4).

- ``processes``: training in one process or several
- ``settings``: settings, inputs, device and output files of a training run
- ``publication``: the metadata in a model file
- ``best_epoch``: the epoch whose model is used
- ``dataset``: the regions of tile stores, also for your own training code
- ``learning_curves``: plots of loss, Dice and AUROC by epoch
"""
