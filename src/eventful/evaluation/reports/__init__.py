"""What an evaluation leaves behind: files for machines, curves, plots and contact sheets."""
