"""Decoding and resizing single images with Pillow, the same way wherever they come from."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


def decode(source: bytes | Path, mode: str, smallest: int = 0) -> Image.Image:
    """Returns the image, upright and in the given mode.

    Args:
      source: the content of an image file, or its path.
      mode: "RGB" or "L" (grey). Transparent parts turn white; 16-bit grey is scaled to 8 bits.
      smallest: a JPEG much larger than this may be decoded at a fraction of its size, no side below it; 0 for never.

    Raises:
      Exception: many kinds; Pillow's decoders raise what a damaged byte leads them to.
    """
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        if smallest:
            image.draft("RGB", (smallest, smallest))
        image.load()
        upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        values = np.asarray(upright).astype(np.int64)
        upright = Image.fromarray(
            (values >> 8 if values.max(initial=0) > 255 else values).clip(0, 255).astype(np.uint8)
        )
    if upright.has_transparency_data:
        layers = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
    return upright.convert(mode)


def to_square(image: Image.Image, size: int) -> Image.Image:
    """Returns the image with its short side scaled to `size` and its centre cut out, [size, size].

    Bilinear; where an image shrinks, each pixel averages all that it stands for.
    """
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
