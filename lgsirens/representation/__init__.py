"""The table of rows, and what is done with it without fitting."""
