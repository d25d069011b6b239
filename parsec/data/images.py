"""Decoding and resizing single images with Pillow, the same way wherever they come from."""

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# Of the short side, what networks for ImageNet are evaluated on.
CENTRE = 224 / 256
# Of a random rectangle: its widest ratio of the sides, as a logarithm, and how often one is drawn that may not fit.
_WIDEST, _CROPS = math.log(4 / 3), 10


def decode(source: bytes | Path, mode: str, smallest: int = 0) -> Image.Image:
    """Returns the image, upright and in the given mode.

    Args:
      source: the content of an image file, or its path.
      mode: "RGB" or "L" (grey). Transparent parts turn white; grey of 16 bits, 0 .. 65535, is scaled to 8.
      smallest: a JPEG much larger than this may be decoded at a fraction of its size, no side below it; 0 for never.

    Raises:
      Exception: many kinds; Pillow's decoders raise what a damaged byte leads them to. Of floating-point pixels nobody
        knows what is white.
    """
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        if smallest:
            image.draft("RGB", (smallest, smallest))
        image.load()
        upright = ImageOps.exif_transpose(image)
    if upright.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if upright.mode.startswith("I"):
        values = np.asarray(upright).astype(np.int64)
        upright = Image.fromarray(
            (values >> 8 if values.max(initial=0) > 255 else values).clip(0, 255).astype(np.uint8)
        )
    if upright.has_transparency_data:
        layers = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
    return upright.convert(mode)


def to_square(image: Image.Image, size: int, share: float = 1.0) -> Image.Image:
    """Returns the centre of the image, a square whose side is a share of its short side, scaled to [size, size].

    Bilinear; where an image shrinks, each pixel averages all that it stands for.
    """
    side = min(image.size) * share
    left, top = ((length - side) / 2 for length in image.size)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))


def random_crop(image: Image.Image, size: int, least_area: float, rng: np.random.Generator) -> Image.Image:
    """Returns a random rectangle of the image scaled to [size, size].

    Source: C. Szegedy et al., Going Deeper with Convolutions, CVPR 2015, section 6: a share of the area and a ratio of
    the sides of 3/4 to 4/3, here uniform in its logarithm; drawn again where the rectangle does not fit.

    Args:
      image: upright.
      size: in pixels.
      least_area: share of the image's area, of which a uniform share up to the whole is kept. Where no rectangle
        fits, as of 1 none does, the centre is cut out.
      rng: advanced.
    """
    width, height = image.size
    for _ in range(_CROPS):
        area = width * height * rng.uniform(least_area, 1)
        ratio = math.exp(rng.uniform(-_WIDEST, _WIDEST))
        wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if wide <= width and high <= height:
            left, top = rng.uniform(0, width - wide), rng.uniform(0, height - high)
            return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + wide, top + high))
    return to_square(image, size)
