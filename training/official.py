"""Download of the official CIFAR-10 archive through Keras."""

import keras
import numpy as np

from cifar10.errors import DatasetNotFoundError
from cifar10.sources import RawArrays


def download_official() -> RawArrays:
    """Download the official archive (170 MB, checked and cached by Keras) and read it.

    Raises:
        DatasetNotFoundError: the download failed; says how to name a copy instead.
    """
    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.cifar10.load_data()
    except Exception as error:  # Keras raises a plain Exception when a download fails
        message = (
            f"the official CIFAR-10 cannot be downloaded ({error}). Name a copy with --data PATH "
            "or CIFAR10_DATA: an image folder, a tar or zip of one, an .npz, or "
            "cifar-10-batches-py; or use --data synthetic to try things out"
        )
        raise DatasetNotFoundError(message) from error
    return RawArrays(
        np.asarray(x_train, np.uint8),
        np.asarray(y_train, np.uint8).reshape(-1),
        np.asarray(x_test, np.uint8),
        np.asarray(y_test, np.uint8).reshape(-1),
        official=True,
    )
