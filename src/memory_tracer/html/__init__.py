"""A capture as one page for a browser: self-contained, offline, and harmless whatever was recorded."""
