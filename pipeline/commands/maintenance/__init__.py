"""What is to be done with a cache, and what a user decides about it: overview, accept, repair."""
