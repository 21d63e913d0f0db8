"""Messages of the protocol, from ``open_inference.binpb``, the compiled ``open_inference.proto``.

They have a descriptor pool of their own. In protobuf's default pool, the definitions of another
package of the same process, such as tritonclient, would clash with ours.
"""

from pathlib import Path
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from service.problems import malformed

SERVICE: Final = "inference.GRPCInferenceService"

POOL: Final = DescriptorPool()
for _file in FileDescriptorSet.FromString(
    Path(__file__).with_name("open_inference.binpb").read_bytes()
).file:
    POOL.Add(_file)


def message_class(name: str) -> Any:
    """Return the class of one of the protocol's messages, such as ``ModelInferRequest``."""
    return GetMessageClass(POOL.FindMessageTypeByName(f"inference.{name}"))


def from_document(name: str, document: dict[str, Any]) -> Any:
    """Return the message ``name`` with the fields of ``document``, which has the same names."""
    return ParseDict(document, message_class(name)(), descriptor_pool=POOL)


def parse(kind: Any, message: bytes) -> Any:
    """Return the message of class ``kind`` in the bytes that a client sent.

    Raises:
        Problem: 400 if they are not one.
    """
    try:
        return kind.FromString(message)
    except DecodeError as error:
        detail = f"the message is not a {kind.DESCRIPTOR.name}: {error}"
        raise malformed(detail) from error
