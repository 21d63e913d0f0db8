"""Load generation: a client, load loops, arrival processes, request bodies, Locust."""
