"""Commands on the storage of a cache: tags, copies, garbage collection."""
