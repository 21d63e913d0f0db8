"""The commands ``data``, ``list``, ``train`` and ``study``, one file each with its options."""
