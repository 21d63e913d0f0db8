"""FastAPI on uvicorn, as its documentation has it: an uploaded file, a model loaded at start.

fastapi.tiangolo.com/advanced/events/ ("Lifespan", its example is a machine-learning model),
.../tutorial/request-files/ (``UploadFile`` in an ``async def``), .../tutorial/response-model/
(the return type), .../deployment/manually/ (``fastapi run``).

    fastapi run server.py
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, UploadFile
from pydantic import BaseModel

from bench.peers.classifier import Classifier, decode

models: dict[str, Classifier] = {}


class Prediction(BaseModel):
    """The answer."""

    label: str
    class_id: int
    probabilities: list[float]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the model before the first request."""
    models["cifar10"] = Classifier()
    yield
    models.clear()


app = FastAPI(lifespan=lifespan)


@app.post("/classify")
async def classify(image: UploadFile) -> Prediction:
    """An image's class."""
    return Prediction(**models["cifar10"].classify(decode(await image.read())))
