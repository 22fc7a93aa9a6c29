"""What a person reads: statistics, verification, summaries."""
