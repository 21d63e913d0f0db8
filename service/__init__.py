"""The HTTP service: POST an image, get its class.

The path of one request: ``edge`` (finds the route, writes the response) → ``classify`` (the route's
handler) → ``upload`` (body → image bytes) → ``inference`` (image bytes → tile, through the kernel;
in a ``fair_thread`` if that takes long) → ``batcher`` (tiles → probabilities). ``app`` is what
``bentoml serve`` starts. ``exchange`` holds the types that these modules share. ``problems``
creates refusals and ``metrics`` counts them. ``memory`` makes the allocator return freed memory.

Supporting modules: ``supervisor`` manages the worker processes, ``server`` their connections and
``board`` the state that they share; ``gpu`` adds the GPUs to the metrics. ``rpc`` serves the same
models over gRPC, through the same ``backend``. ``access``, ``reload`` and ``tracing`` are off
unless configured.

The service accepts image bytes only: it fetches no URL, reads no pickle and never trusts a header
about an image's type.
"""
