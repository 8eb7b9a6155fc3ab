"""Opening volumes and writing labels.

`volume` reads, through one module of `readers` a kind of source; `labels` keeps label arrays on disk while
they are worked on; `save` writes them for others to read.
"""
