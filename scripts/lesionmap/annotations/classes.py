"""Class codes of masks, as tile stores hold them (METHOD.md §1.1)."""

BACKGROUND, LESION, VESSEL, FAT, IGNORE = 0, 1, 2, 3, 255
CLASS_NAMES = {"lesion": LESION, "vessel": VESSEL, "fat": FAT}
OUTLINED = {"ignore": IGNORE, **CLASS_NAMES}  # classes of outlines; where they overlap, the first wins
STORED_CLASSES = ("background", *CLASS_NAMES)  # in the order of their codes
MAJORITY_ORDER = (LESION, VESSEL, FAT, BACKGROUND, IGNORE)  # in a tie for one pixel, the first wins
