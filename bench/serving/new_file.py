"""New files of a model for trials of reloading: other bytes, the same answers."""

import hashlib
from dataclasses import replace
from pathlib import Path

from cifar10.card import read_card
from cifar10.records import to_json
from cifar10.store import CARD_FILE, ONNX_FILE


def put_new_file(folder: Path, onnx: bytes, number: int) -> str:
    """Write a model file with a new digest but the same answers, and its card.

    Args:
        folder: the model's folder in a store.
        onnx: the model to write.
        number: appended to the file; each number gives another digest.

    Returns:
        The SHA-256 of the new file.
    """
    text = str(number).encode()
    new = onnx + b"\x32" + bytes([len(text)]) + text  # doc_string, field 6 of ModelProto
    digest = hashlib.sha256(new).hexdigest()
    card = read_card((folder / CARD_FILE).read_bytes())
    (folder / ONNX_FILE).write_bytes(new)
    (folder / CARD_FILE).write_text(to_json(replace(card, sha256=digest)))
    return digest
