"""The Open Inference Protocol over gRPC, on a port of its own, in every worker.

``port`` decides whether gRPC is on and reserves its port, ``server`` listens, ``edge`` finds the
method of a call and checks it, ``methods`` answers. A server without gRPC imports only ``port``.
"""
