"""BentoML's hello world, the reference for start-up time.

Adapted from docs.bentoml.com/en/latest/get-started/hello-world.html, without the model.

    bentoml serve server:Hello
"""

import bentoml


@bentoml.service(workers=1)
class Hello:
    """A service with one route and no model."""

    @bentoml.api
    def hello(self, name: str) -> str:
        """Return a greeting."""
        return f"Hello, {name}"
