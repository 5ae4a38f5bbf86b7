"""plan: what the long stages take in memory, time and disk, before they start."""
