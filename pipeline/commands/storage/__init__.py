"""Commands about what is stored in a cache: names for its states, copies, removal of what is not needed."""
