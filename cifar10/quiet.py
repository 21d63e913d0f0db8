"""Import what writes to standard error while it is imported, without what it writes.

TensorFlow logs from C++ before it has read ``TF_CPP_MIN_LOG_LEVEL``: a screenful before the first
line of ours, about nothing that went wrong. Whoever sets that variable, to any other value than the
one that asks for silence, sees it all: also what an import says that then kills the process.
"""

import importlib
import os
import sys
import tempfile
from typing import Final

_STANDARD_ERROR: Final = 2
_VARIABLE: Final = "TF_CPP_MIN_LOG_LEVEL"
_SILENCE: Final = "3"


def import_quietly(name: str) -> None:
    """Import the module ``name``; what it writes to standard error is shown only if that fails.

    Raises:
        Exception: whatever the import raises.
    """
    if sys.stderr is None or os.environ.get(_VARIABLE, _SILENCE) != _SILENCE:
        importlib.import_module(name)
        return
    sys.stderr.flush()
    kept = os.dup(_STANDARD_ERROR)
    try:
        with tempfile.TemporaryFile() as written:
            os.dup2(written.fileno(), _STANDARD_ERROR)
            try:
                importlib.import_module(name)
            except BaseException:
                os.dup2(kept, _STANDARD_ERROR)
                written.seek(0)
                os.write(_STANDARD_ERROR, written.read())
                raise
            finally:
                sys.stderr.flush()
                os.dup2(kept, _STANDARD_ERROR)
    finally:
        os.close(kept)
