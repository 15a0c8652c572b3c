"""The tasks, one file each, what several of them share, and `registry`, which names them."""
