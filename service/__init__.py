"""The service: POST an image, get its class.

One request, from socket to answer: ``edge`` (finds who answers, and writes the answer) →
``classify`` (the steps of that address) → ``upload`` (body → image bytes) → ``inference`` (image
bytes → tile, through the kernel; in a ``fair_thread`` where that takes long) → ``batcher`` (tiles →
probabilities). ``app`` is what ``bentoml serve`` starts; ``exchange`` has the words they share;
refusals are made in ``problems``, counted in ``metrics``; ``memory`` has what they took given back.

Around it: ``supervisor`` keeps the worker processes, ``server`` their connections, ``board`` what
they know of each other; ``gpu`` adds the GPUs to the metrics; ``access``, ``reload`` and
``tracing`` are off unless they are set.

Takes image bytes only: no URL is fetched, no pickle is read, no header decides what an image is.
"""
