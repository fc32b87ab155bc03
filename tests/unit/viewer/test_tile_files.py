from base64 import b64decode

from lesionmap.viewer.tile_files import write_tile


def test_a_tile_is_a_call_with_its_name_and_picture(tmp_path):
    write_tile(tmp_path / "slide", (3, 12, 7), b"\xff\xd8picture")
    text = (tmp_path / "slide/3/12_7.js").read_text(encoding="ascii")
    head, picture, tail = text.split('"')[1], text.split('"')[3], text.split('"')[4]
    assert (text[:15], head, b64decode(picture), tail) == (
        'lesionmapTile("',
        "slide/3/12_7",
        b"\xff\xd8picture",
        ");\n",
    )
