"""A representation where people are: as an array, in other libraries, in a notebook, on a page."""
