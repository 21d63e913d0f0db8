"""The service: POST an image, get its class.

One request, from socket to answer: ``app`` (what ``bentoml serve`` starts) → ``edge`` (routes and
answers) → ``upload`` (body → image bytes) → ``inference`` (bytes → probabilities, through the
kernel). Refusals are made in ``problems``, counted in ``metrics``.

Takes image bytes only: no URL is fetched, no pickle is read, no header decides what an image is.
"""
