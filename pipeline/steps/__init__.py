"""The steps of one split: what is wanted, what is to do, what was done."""
