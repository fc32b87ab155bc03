"""Predicted lesions for a person to correct in QuPath. What comes back is read in ``annotations``.

- ``folder``: write the folder of a review
"""
