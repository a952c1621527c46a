"""Files <-> Signal."""
