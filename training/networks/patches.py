"""The axes along which small patches of the training images vary, for first convolutions."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

_IMAGES: Final = 5_000


def patch_axes(
    images: NDArray[np.uint8], side: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The eigenvalues and eigenvectors of the patches' second moments.

    Args:
        images: uint8 (N, 32, 32, 3), RGB; the first 5,000 are used, their pixels scaled to -1–1.
        side: of a patch, pixels.

    Returns:
        The eigenvalues in rising order, (3 side²,), and the vectors in its columns,
        (3 side², 3 side²); a column reshapes to a kernel, (side, side, 3).
    """
    pixels = images[:_IMAGES].astype(np.float32) / 127.5 - 1
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (side, side), axis=(1, 2))
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 3 * side**2)
    moments = (patches.T @ patches).astype(np.float64) / len(patches)
    values, vectors = np.linalg.eigh(moments)
    return values, vectors
