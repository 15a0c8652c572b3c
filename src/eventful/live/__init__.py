"""Live cameras: one model over many of them, one budget, one page."""
