"""Tests that need a GPU: ``pytest -m cuda tests/cuda``.

Without one they are skipped. ``GPU_TEST_DEVICE=cpu`` rehearses them on a CPU: the same code on
the other provider, so that a mistake in a test is found before a GPU is at hand.
"""
