"""The ``cifar10`` command line, and the commands that need only the kernel.

``main`` runs a command and reports every expected failure in one line. ``discovery`` finds the
commands of all installed stages through entry points, without importing them. ``command`` has the
classes for commands and groups. ``terminal`` prints. ``options`` has the options shared by several
stages. ``predict`` and ``doctor`` are commands.
"""
