"""How each cost is drawn."""

from typing import Final

from bench.rows.selection import TradeOff

COST_AXES: Final[dict[TradeOff, tuple[str, float]]] = {
    "latency": ("latency of one image (ms)", 1),
    "size": ("file size (MB)", 1e-6),
    "MACs": ("multiply-accumulates (millions)", 1e-6),
}
"""Axis label, and what turns the cost into its unit."""
