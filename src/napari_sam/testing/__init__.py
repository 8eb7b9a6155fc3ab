"""Phantoms and fakes for tests, shipped so that extensions can use them."""
