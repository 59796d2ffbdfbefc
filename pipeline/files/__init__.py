"""Files that others made, which may be damaged or hostile: their formats, their pixels, and what changed among them."""
