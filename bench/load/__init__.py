"""Load generation: client, load loops, arrival processes, request bodies and Locust."""
