"""What is done with a whole cache: an overview, accepted differences, repair from raw data."""
