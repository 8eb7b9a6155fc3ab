"""Keeping what the image encoder computed: in memory, on disk, in tiers."""
