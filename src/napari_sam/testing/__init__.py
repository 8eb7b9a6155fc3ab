"""Phantoms, fakes and conformance suites: for this program's tests and for those of programs built on it."""
