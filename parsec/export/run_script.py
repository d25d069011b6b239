"""load_and_run.py: the shortest program that uses a trained network, for a machine that has jax, numpy and Pillow.

jax imports flatbuffers when it reads a program, so that this must be installed too. The script stands beside
the StableHLO program and prepares images as training did (`parsec.data.images`), but for grey of 16 bits, which it does
not scale to 8.
"""

import hashlib
import math

from parsec.train.model_file import Metadata

_TEXT = '''"""Prints class and probability of images: python load_and_run.py FILE ... (jax, flatbuffers, pillow)."""

import hashlib, sys
from pathlib import Path
import jax, jax.export
import numpy as np
from PIL import Image, ImageOps

CLASSES = {classes!r}
content = Path(__file__).with_name({program!r}).read_bytes()
if hashlib.sha256(content).hexdigest() != {digest!r}:
    sys.exit("{program} is damaged, or of another training")
network = jax.jit(jax.export.deserialize(bytearray(content)).call)
for name in sys.argv[1:]:
    with Image.open(name) as file:
        file.draft("RGB", ({side}, {side}))
        image = ImageOps.exif_transpose(file).convert("RGBA")
    opaque = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert({mode!r})
    pixels = np.asarray(ImageOps.fit(opaque, ({width}, {height}), Image.Resampling.BILINEAR, {bleed}), np.uint8)
    probabilities = np.asarray(network(pixels.reshape(1, {height}, {width}, {channels})))[0]
    print(f"{{name}}: {{CLASSES[probabilities.argmax()]}} {{probabilities.max():.4f}}")
'''


def run_script(metadata: Metadata, program: str, content: bytes) -> str:
    """Returns the text of load_and_run.py.

    Args:
      metadata: of the network.
      program: name of the file of the StableHLO program, in the script's own folder.
      content: of that file.
    """
    height, width, channels = metadata.image
    return _TEXT.format(
        classes=metadata.class_names,
        program=program,
        digest=hashlib.sha256(content).hexdigest(),
        side=math.ceil(max(height, width) / metadata.centre),
        bleed=(1 - metadata.centre) / 2,
        mode="L" if channels == 1 else "RGB",
        height=height,
        width=width,
        channels=channels,
    )
