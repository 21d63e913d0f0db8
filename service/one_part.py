"""Read the usual form with one image without a parser.

A program's form with one image has one part, the same few header lines and no byte that needs
interpretation. For anything else, valid or not, the parser of :mod:`service.upload` decides.
"""

import re
from typing import Final

_FORM_TYPE: Final = re.compile(rb"multipart/form-data; ?boundary=([0-9A-Za-z'()+_.-]{1,200})")
_HEAD: Final = re.compile(
    rb'\r\n(?i:Content-Disposition: form-data; name)="(?:image|file)"'
    rb'(?:; (?i:filename)="[^"\\\r\n]{0,255}")?\r\n'
    rb"(?:(?i:Content-Type): [0-9A-Za-z/.+-]{1,100}\r\n)?\r\n"
)


def only_image(body: bytes, content_type: bytes) -> bytes | None:
    """Return the content of a form's only part, an image, or None if the parser has to decide."""
    form_type = _FORM_TYPE.fullmatch(content_type)
    if form_type is None:
        return None
    delimiter = b"\r\n--" + form_type[1]
    if not body.startswith(delimiter[2:]):
        return None
    head = _HEAD.match(body, len(delimiter) - 2)
    if head is None:
        return None
    begins = head.end()
    ends = body.find(delimiter, begins)
    if ends <= begins or body[ends + len(delimiter) :] not in (b"--\r\n", b"--"):
        return None
    return body[begins:ends]
