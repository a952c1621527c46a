"""Representations where people are: arrays, URLs, a page."""
