"""Stains, and profiles of them; of the library this needs no more than the profile."""

from dataclasses import replace

import numpy as np
from lesionmap.stain.profile import StainProfile
from lesionmap.stain.separation import RUIFROK


def unit(basis) -> np.ndarray:
    basis = np.array(basis, dtype=float)
    return basis / np.linalg.norm(basis, axis=1, keepdims=True)


HE = unit(RUIFROK)
OTHER_HE = unit([[0.55, 0.75, 0.37], [0.20, 0.95, 0.25]])
CAMELYON = unit([[0.302, 0.771, 0.561], [0.308, 0.870, 0.386]])  # both absorb as much red
BROWN = unit([RUIFROK[0], [0.27, 0.57, 0.78]])  # haematoxylin and diaminobenzidine

PROFILE = StainProfile(tuple(map(tuple, HE.tolist())), (1.5, 1.2), 20_000, 0.01, "vahadane", "ok")


def profile(basis=HE, **changes) -> StainProfile:
    return replace(PROFILE, basis=tuple(map(tuple, np.array(basis).tolist())), **changes)
