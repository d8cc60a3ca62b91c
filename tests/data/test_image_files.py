"""Image files of anyone's: what their numbers mean, and what is said of those that cannot be read."""

from __future__ import annotations

import os
import struct
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from transpike.data import Loading, image_files, load_images
from transpike.data.image_files import FORMATS, read_image
from transpike.errors import DataError

RAMP = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (4, 1))


def written(path: Path, image: Image.Image, **options: Any) -> str:
    image.save(path, **options)
    return str(path)


def grey(path: str) -> list[int]:
    """The first row of an image whose three channels are equal."""
    image = read_image(path)
    assert image.mode == "RGB"
    row = np.asarray(image)[0]
    assert (row == row[:, :1]).all()
    return [int(value) for value in row[:, 0]]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_by_their_range(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"ramp.{suffix}", Image.fromarray(RAMP))
    assert grey(path) == np.rint(RAMP[0] / 257).astype(int).tolist()


def test_a_class_folder_of_deep_images_is_as_bright_as_one_of_shallow_ones(tmp_path: Path) -> None:
    deep = {"a": Image.fromarray(RAMP), "b": Image.fromarray((RAMP / 65535).astype(np.float32))}
    for part in ("train", "val"):
        for name, image in deep.items():
            (tmp_path / part / name).mkdir(parents=True)
            image.save(tmp_path / part / name / "0.tif")
    loading = Loading(size=4, validation=0, mean=(0.0,) * 3, std=(1.0,) * 3)
    images, _ = next(iter(load_images("folder", root=tmp_path, loading=loading).test))
    assert images.mean((1, 2, 3)).tolist() == pytest.approx([0.5, 0.5], abs=0.01)


def test_floating_point_between_0_and_1_is_grey(tmp_path: Path) -> None:
    assert grey(written(tmp_path / "f.tif", Image.fromarray(np.float32([[0, 0.25, 1]])))) == [0, 64, 255]
    (tmp_path / "f.pfm").write_bytes(b"Pf\n2 1\n-1.0\n" + np.array([0.5, 1], "<f4").tobytes())
    assert grey(str(tmp_path / "f.pfm")) == [128, 255]


@pytest.mark.parametrize("values", [[0.0, 255.0], [-1.0, 1.0], [0.0, float("nan")], [0.0, float("inf")]])
def test_floating_point_elsewhere_is_refused(tmp_path: Path, values: list[float]) -> None:
    path = written(tmp_path / "f.tif", Image.fromarray(np.float32([values])))
    with pytest.raises(DataError, match=r"f\.tif has values from .*floating-point image must lie between 0 and 1\."):
        read_image(path)


def tagged(path: Path, tag: int, value: int) -> str:
    """A little-endian TIFF with a short tag overwritten."""
    content = bytearray(path.read_bytes())
    place = content.index(struct.pack("<HHI", tag, 3, 1))
    content[place + 8 : place + 10] = struct.pack("<H", value)
    path.write_bytes(content)
    return str(path)


def test_twelve_bits_of_a_tiff_are_scaled_by_4095(tmp_path: Path) -> None:
    # Two values of 12 bits, 0x7ff and 0xfff, are the three bytes 7f ff ff.
    written(tmp_path / "t.tif", Image.fromarray(np.frombuffer(b"\x7f\xff\xff\0", "<u2").reshape(1, 2)))
    assert grey(tagged(tmp_path / "t.tif", 258, 12)) == [127, 255]


def test_the_tag_of_the_largest_value_is_obeyed(tmp_path: Path) -> None:
    image = Image.fromarray(np.uint16([[0, 500, 1000]]))
    assert grey(written(tmp_path / "t.tif", image, tiffinfo={281: 1000})) == [0, 128, 255]
    path = written(tmp_path / "t.tif", image, tiffinfo={281: 999})
    with pytest.raises(DataError, match=r"values from 0 to 1000, but those of a grey image must lie between 0 and 999"):
        read_image(path)


def test_white_may_be_zero(tmp_path: Path) -> None:
    written(tmp_path / "t.tif", Image.fromarray(np.uint16([[0, 65535]])))
    assert grey(tagged(tmp_path / "t.tif", 262, 0)) == [255, 0]


def test_twelve_bits_in_sixteen_are_warned_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "_SAID", [])
    path = written(tmp_path / "dark.png", Image.fromarray(np.uint16([[0, 4095]])))
    with pytest.warns(UserWarning, match=r"dark\.png has 16 bits, but no value above 4095.*multiply its values by 16"):
        assert grey(path) == [0, 16]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(path)


def test_whole_numbers_without_a_range_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "i.tif", Image.fromarray(np.int32([[0, 70000]])))
    with pytest.raises(DataError, match=r"i\.tif has whole numbers of 32 bits"):
        read_image(path)


def test_other_kinds_are_converted_as_torchvision_does(tmp_path: Path) -> None:
    colours = Image.fromarray(np.uint8([[[255, 0, 0], [0, 0, 255]]]))
    for name, image in {
        "palette": colours.quantize(4),
        "alpha": Image.merge("RGBA", (*colours.split(), Image.new("L", (2, 1), 0))),
        "cmyk": colours.convert("CMYK"),
    }.items():
        suffix = "tif" if name == "cmyk" else "png"
        assert np.asarray(read_image(written(tmp_path / f"{name}.{suffix}", image))).tolist() == [
            [[255, 0, 0], [0, 0, 255]]
        ], name
    half = Image.merge("LA", (Image.new("L", (1, 1), 77), Image.new("L", (1, 1), 0)))
    assert grey(written(tmp_path / "la.png", half)) == [77]
    assert grey(written(tmp_path / "one.png", Image.new("1", (1, 1), 1))) == [255]
    clear = Image.new("P", (2, 1))
    clear.putpalette([10, 10, 10, 20, 20, 20])
    clear.putpixel((1, 0), 1)
    path = written(tmp_path / "clear.png", clear, transparency=b"\0\x80")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert grey(path) == [10, 20]


def test_a_pipe_is_no_image_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.png")
    with pytest.raises(DataError, match=r"0\.png is not a regular file"):
        read_image(str(tmp_path / "0.png"))


def test_a_file_larger_than_any_image_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "0.webp"
    Image.new("RGB", (4, 4)).save(path)
    os.truncate(path, 2**34)  # which WebP's decoder would read whole
    with pytest.raises(DataError, match=r"0\.webp has 17,179,869,184 bytes"):
        read_image(str(path))


def test_no_file_is_handed_to_another_program(tmp_path: Path) -> None:
    assert not {"EPS", "WMF"} & set(FORMATS)
    (tmp_path / "0.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    assert Image.open(tmp_path / "0.png").format == "EPS"
    with pytest.raises(DataError, match=r"0\.png is not a readable image: cannot identify image file"):
        read_image(str(tmp_path / "0.png"))


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_more_pixels_than_pillow_reads_are_refused_before_they_are_decoded(tmp_path: Path, side: int) -> None:
    (tmp_path / "0.ppm").write_bytes(b"P5 %d %d 255\n" % (side, side))
    with pytest.raises(DataError, match=rf"0\.ppm declares more pixels than transpike reads \(.*{side**2} pixels"):
        read_image(str(tmp_path / "0.ppm"))


def encoded(name: str) -> bytes:
    file = BytesIO()
    Image.fromarray(np.uint8(np.arange(48).reshape(4, 4, 3) * 5)).save(file, name)
    return file.getvalue()


@given(data=st.data(), name=st.sampled_from(FORMATS))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_an_image_or_one_error(tmp_path: Path, data: st.DataObject, name: str) -> None:
    content = bytearray(encoded(name))
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"{name}.png"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        assert read_image(str(path)).mode == "RGB"
    except DataError as error:
        assert str(path) in str(error)
