"""One image file of anyone's as an RGB image of eight bits a channel: what may be opened, and what its numbers mean."""

from __future__ import annotations

import os
import stat
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from transpike.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FORMATS", "read_image"]

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What may be opened: formats that Pillow decodes by itself. EPS, for one, it would hand to Ghostscript, which runs
programs."""

LARGEST = 2**30
"""Bytes of an image file: more than Pillow's limit of pixels takes uncompressed, and some formats are read whole."""

# Tags of TIFF.
_BITS, _PHOTOMETRIC, _MAXIMUM = 258, 262, 281
_WHITE_IS_ZERO = 0


def read_image(path: str) -> Image.Image:
    """An image file as a Pillow image in RGB.

    Sixteen-bit grey is scaled by what its type can hold, 65535; by 4095 where a TIFF has 12 bits, and by the TIFF's own
    tag MaxSampleValue. Floating-point grey must lie between 0 and 1. Both are rounded to 8 bits, as all that follows
    works on these. Other images are converted as Pillow and torchvision do: palettes are looked up, transparency is
    left out, CMYK becomes RGB. Of several frames the first is taken.

    Args:
        path: a file of one of `FORMATS`, whatever its suffix.

    Raises:
        DataError: the file is no regular one, damaged or of another format; it is larger than `LARGEST`, or promises
            more pixels than Pillow's limit; its numbers have no range that is known.
    """
    from PIL import Image

    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{path} is no regular file, and cannot be an image. Remove it.")
        if found.st_size > LARGEST:
            raise DataError(f"{path} has {found.st_size:,} bytes, more than any image that is read. Remove it.")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", message="Palette images with Transparency")
            with Image.open(path, formats=FORMATS) as image:
                grey = _grey(image, path)
                return image.convert("RGB") if grey is None else Image.fromarray(grey).convert("RGB")
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{path} promises more pixels than are read ({error}). Make it smaller, or remove it."
        ) from error
    except Exception as error:  # whatever a decoder makes of a damaged file
        why = f"{error}" or type(error).__name__
        raise DataError(f"{path} is not a readable image: {why}. Replace or remove it.") from error


def _grey(image: Image.Image, path: str) -> NDArray[np.uint8] | None:
    """An image of one channel with more than 8 bits as 8 bits; None for others, which Pillow converts rightly."""
    if not image.mode.startswith(("I", "F")):
        return None
    values = np.asarray(image)
    top = 1 if image.mode == "F" else _top(image, path)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= top):  # nor NaN
        raise DataError(
            f"{path} has values from {low:g} to {high:g}, but those of a {_kind(image)} image must lie between 0 and "
            f"{top}. Scale them, or save it with 8 bits."
        )
    if top == 65535 and 255 < high <= 4095:
        _warn_of_12_bits(path)
    scaled = np.rint(values * (255 / top)).astype(np.uint8)
    return 255 - scaled if _tag(image, _PHOTOMETRIC) == _WHITE_IS_ZERO else scaled


def _top(image: Image.Image, path: str) -> int:
    """The value of white in an image of whole numbers."""
    if (maximum := _tag(image, _MAXIMUM)) is not None:
        return int(maximum)
    bits = _tag(image, _BITS)
    if bits == 12:
        return 4095
    # Pillow gives the numbers of a PGM file, and in some versions those of a PNG file, as 32 bits, but scaled to 16.
    if image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise DataError(
            f"{path} has whole numbers of {bits or 32} bits that have a sign, or are too large to say which of them is "
            "white. Save it with 8 or 16 bits and without a sign, or write the tag MaxSampleValue."
        )
    return 65535


def _tag(image: Image.Image, number: int) -> Any:
    """A tag of a TIFF file, the first value if it has several; None if it has none."""
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) else value


def _kind(image: Image.Image) -> str:
    return "floating-point" if image.mode == "F" else "grey"


_SAID: list[str] = []
"""The images that were warned of, one in a process: a change of its filters makes Python forget what it has said."""


def _warn_of_12_bits(path: str) -> None:
    if not _SAID:
        _SAID.append(path)
        warnings.warn(
            f"{path} has 16 bits, but no value above 4095. If these are 12 bits, the image set is 16 times too dark: "
            "multiply its values by 16, or save it with 12 bits.",
            stacklevel=2,
        )
