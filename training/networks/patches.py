"""Principal axes of small patches of the training images, for first convolutions."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_PIXELS: Final = 5_000 * 32 * 32
"""Number of pixels of the images that are used, to bound the memory for their patches."""


def patch_axes(
    images: NDArray[np.uint8], side: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the eigenvalues and eigenvectors of the patches' second moments.

    Args:
        images: uint8 (N, H, W, 3), RGB; the first 5,000 of 32 × 32 pixels, or as many pixels of
            other sizes, are used, scaled to -1–1.
        side: side of a patch in pixels.

    Returns:
        The eigenvalues in rising order, (3 side²,), and the vectors in its columns,
        (3 side², 3 side²); a column reshapes to a kernel, (side, side, 3).
    """
    count = max(1, _PIXELS // (images.shape[1] * images.shape[2]))
    pixels = images[:count].astype(np.float32) / 127.5 - 1
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (side, side), axis=(1, 2))
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 3 * side**2)
    moments = (patches.T @ patches).astype(np.float64) / len(patches)
    values, vectors = np.linalg.eigh(moments)
    return values, vectors
