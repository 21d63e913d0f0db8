"""Parts of reading a data set: the classes of a folder, a user's own images, the cache."""
