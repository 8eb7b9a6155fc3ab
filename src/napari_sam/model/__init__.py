"""The networks of the SAM family, readable beside the paper (Kirillov et al. 2023, arXiv 2304.02643)."""
