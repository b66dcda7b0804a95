"""One comparator per answer type: each takes the answer as extracted and the reference, and decides or asks algebra."""
