"""Work on a Ray cluster: connecting, and classifying many images."""
