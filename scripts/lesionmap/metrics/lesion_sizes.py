"""Sizes of lesions by their diameter."""

import numpy as np

SIZES_UM = (0, 200, 500, 2000, np.inf)  # 0.2 and 2 mm separate isolated cells, micro- and macrometastases (AJCC)
SIZE_NAMES = ("below_0.2mm", "0.2_to_0.5mm", "0.5_to_2mm", "from_2mm")
