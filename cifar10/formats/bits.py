"""Read numbers of any number of bits."""


class Bits:
    """Reads a header bit by bit."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self.left = 8 * len(data)

    def take(self, count: int) -> int:
        """Return the next number of ``count`` bits; 0 after the end, where ``left`` is negative."""
        self.left -= count
        return self._value >> self.left & ((1 << count) - 1) if self.left >= 0 else 0
