"""This service beside others: the same model and the same pictures, one worker on one core each.

Every peer is a folder with the server as its own documentation has it written, and with the pinned
packages of an environment of its own. Nothing in those folders is imported from here: they run in
their own environments, and are scripts, not modules of this package.
"""
