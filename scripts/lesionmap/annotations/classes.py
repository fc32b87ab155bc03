"""Class codes of masks, which the tile store documents (METHOD.md §1.1)."""

BACKGROUND, LESION, VESSEL, FAT, IGNORE = 0, 1, 2, 3, 255
CLASS_NAMES = {"lesion": LESION, "vessel": VESSEL, "fat": FAT}
STORED_CLASSES = ("background", *CLASS_NAMES)  # by their code
MAJORITY_ORDER = (LESION, VESSEL, FAT, BACKGROUND, IGNORE)  # of classes with equal areas, where pixels become one
