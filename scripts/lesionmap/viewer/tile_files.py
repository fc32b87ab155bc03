"""A tile's file: a script, since a page that is opened from disk may not read the pixels of other files."""

from base64 import b64encode
from pathlib import Path

from lesionmap.viewer.pyramid import Tile


def write_tile(folder: Path, tile: Tile, picture: bytes) -> None:
    """Write ``<zoom>/<column>_<row>.js``: one call that gives the viewer the tile's name and its picture in base64.

    The name begins with the folder's: ``slide/3/1_2``.
    """
    zoom, column, row = tile
    name = f"{zoom}/{column}_{row}"
    path = folder / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'lesionmapTile("{folder.name}/{name}","{b64encode(picture).decode("ascii")}");\n', encoding="ascii"
    )
