"""One file per layout: `detect(path) -> bool` and `read(section, columns) -> Source`."""
