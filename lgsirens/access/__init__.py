"""A representation where people read arrays: lazily in NumPy's way, in other libraries, in a notebook."""
