"""Values and pure functions. Imports numpy and nothing else outside the standard library."""
