"""Import a noisy module without showing what it writes to standard error.

TensorFlow logs from C++ before it reads ``TF_CPP_MIN_LOG_LEVEL``: a screenful of harmless messages
before our first line. Setting that variable to any value other than 3 shows everything, including
the output of an import that kills the process. The same goes for the warnings that TensorFlow logs
from Python, such as those of functions that are traced again, which each phase of a training does.
"""

import importlib
import logging
import os
import sys
import tempfile
from typing import Final

_STANDARD_ERROR: Final = 2
_VARIABLE: Final = "TF_CPP_MIN_LOG_LEVEL"
_SILENCE: Final = "3"


def import_quietly(name: str) -> None:
    """Import the module ``name``. Show what it writes to standard error only if the import fails.

    Raises:
        Exception: any exception that the import raises.
    """
    if sys.stderr is None or os.environ.get(_VARIABLE, _SILENCE) != _SILENCE:
        importlib.import_module(name)
        return
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
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
