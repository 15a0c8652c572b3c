"""The commands, a file each: what it does, what it prints, and its options."""
