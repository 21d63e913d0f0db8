"""Train the recipes with Keras 3: dataset in, ``model.keras`` and ``training.json`` out."""
