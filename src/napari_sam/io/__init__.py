"""Opening volumes and writing labels."""
