"""HTML pages: tracks of a split (`show`), and a report on a cache and its training runs (`report`). See README.md."""
