"""BentoML's hello world: its start-up time is compared with ours.

docs.bentoml.com/en/latest/get-started/hello-world.html, its text without the model.

    bentoml serve server:Hello
"""

import bentoml


@bentoml.service(workers=1)
class Hello:
    """One route, no model."""

    @bentoml.api
    def hello(self, name: str) -> str:
        """A greeting."""
        return f"Hello, {name}"
