"""One module a kind of source; each turns it into `Pixels`, which `io.volume` reads from."""
