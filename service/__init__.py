"""The BentoML service: POST an image, get its class."""
