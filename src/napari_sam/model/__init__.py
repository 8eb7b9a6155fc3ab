"""The networks: SAM in torch, readable beside the paper."""
