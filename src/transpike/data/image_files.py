"""Reads any image file as an RGB image with eight bits for each channel: allowed formats, and ranges of numbers."""

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
"""The formats that may be opened: those that Pillow decodes by itself. EPS, for instance, would start Ghostscript,
which runs programs."""

LARGEST = 2**30
"""The largest size of an image file: more than Pillow's limit of pixels needs without compression, because some formats
are read completely."""

# TIFF tags.
_BITS, _PHOTOMETRIC, _MAXIMUM = 258, 262, 281
_WHITE_IS_ZERO = 0


def read_image(path: str) -> Image.Image:
    """Read an image file as a Pillow image in RGB.

    Sixteen-bit grey is scaled by the largest number of its type, 65535. It is scaled by 4095 if a TIFF has 12 bits, and
    by the TIFF's own tag MaxSampleValue if there is one. Floating-point grey must lie between 0 and 1. Both are rounded
    to 8 bits, with which all later steps work. Other images are converted as Pillow and torchvision do: palettes are
    looked up, transparency is removed, CMYK becomes RGB. Of several frames the first is used.

    Args:
        path: a file in one of `FORMATS`, with any suffix.

    Raises:
        DataError: The file is not a regular file, or damaged, or of another format. Or it is larger than `LARGEST`, or
            declares more pixels than Pillow's limit. Or the range of its numbers is not known.
    """
    from PIL import Image

    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path} is not a regular file, so it cannot be an image. Remove it.")
        if status.st_size > LARGEST:
            raise DataError(f"{path} has {status.st_size:,} bytes, more than transpike reads of an image. Remove it.")
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
            f"{path} declares more pixels than transpike reads ({error}). Make it smaller, or remove it."
        ) from error
    except Exception as error:  # a decoder may raise anything for a damaged file
        why = f"{error}" or type(error).__name__
        raise DataError(f"{path} is not a readable image: {why}. Replace or remove it.") from error


def _grey(image: Image.Image, path: str) -> NDArray[np.uint8] | None:
    """Return an image of one channel and more than 8 bits as 8 bits. None for others, which Pillow converts."""
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
    """Return the value of white in an image of whole numbers."""
    if (maximum := _tag(image, _MAXIMUM)) is not None:
        return int(maximum)
    bits = _tag(image, _BITS)
    if bits == 12:
        return 4095
    # Pillow returns a PGM file's numbers, and in some versions a PNG file's, as 32 bits, but scaled to 16.
    if image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise DataError(
            f"{path} has whole numbers of {bits or 32} bits, with a sign or so large that it is unknown which is "
            "white. Save it with 8 or 16 bits and without a sign, or write the tag MaxSampleValue."
        )
    return 65535


def _tag(image: Image.Image, number: int) -> Any:
    """Return a tag of a TIFF file, the first value if it has several, or None if it is missing."""
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) else value


def _kind(image: Image.Image) -> str:
    return "floating-point" if image.mode == "F" else "grey"


_SAID: list[str] = []
"""The images with a warning, one for each process. A change of warning filters makes Python forget its warnings."""


def _warn_of_12_bits(path: str) -> None:
    if not _SAID:
        _SAID.append(path)
        warnings.warn(
            f"{path} has 16 bits, but no value above 4095. If these are 12 bits, the image set is 16 times too dark: "
            "multiply its values by 16, or save it with 12 bits.",
            stacklevel=2,
        )
