"""The eventful block: gates and buffers around another block's own submodules."""
