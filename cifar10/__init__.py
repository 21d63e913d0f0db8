"""The kernel: what training, exporting, serving and measuring must do in exactly the same way.

Labels, image decoding, the dataset and its split, the model card and store, the predictor, and the
exceptions. It knows nothing of Keras, HTTP or benchmarks, and imports none of the packages that do.
"""
