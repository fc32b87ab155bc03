"""Train the network (METHOD.md §3–4).

- ``processes``: training in one process or several
- ``settings``: what is trained, how, where, and which files it writes
- ``publication``: what a model file records of its training
- ``dataset``: the regions of tile stores, for training code of your own
- ``learning_curves``: loss, Dice and AUROC over the epochs
"""
