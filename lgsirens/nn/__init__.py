"""The mathematics: networks, widths, working memory. PyTorch alone."""
