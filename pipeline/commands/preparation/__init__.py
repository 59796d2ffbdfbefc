"""Parts of `prepare`: its detector, its pages, its summary."""
