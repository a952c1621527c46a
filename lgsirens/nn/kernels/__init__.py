"""Errors and gradients of one block of samples. The eager kernel is the law; a faster one stands beside it."""
