"""What is to be done with a cache, how much and for how long, and how it is repaired: overview, forecast, repair."""
