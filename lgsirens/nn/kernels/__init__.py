"""Errors and gradients of one block of samples. The plain path is the law; faster ones stand beside it."""
